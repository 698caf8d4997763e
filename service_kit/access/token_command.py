"""The command `token`: makes a token, and the table that lets it in."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from service_kit.access.roles import Role, make_token
from service_kit.terminal.command import Argument, BadParameter, Option, echo
from service_kit.terminal.printing import Json, print_fields


def token(
    name: Annotated[str, Argument(help="Who the token is for.")],
    role: Annotated[list[Role], Option(help="What it may do; may be repeated.")],
    variable: str,
    roles: Sequence[str],
    days: Annotated[int | None, Option(min=1, help="How long it is good for; for ever when not given.")] = None,
    as_json: Json = False,
) -> None:
    """Make a token. It goes to stdout, this once; the table for the list of callers goes to stderr."""
    # variable and roles are the program's: the setting that names the file, and what callers may do here.
    if others := sorted(set(role) - set(roles)):
        raise BadParameter(f"{', '.join(others)}: the roles here are {', '.join(roles)}", param_hint="--role")
    try:
        made, table = make_token(name, role, datetime.now(UTC) + timedelta(days=days) if days else None)
    except ValueError as error:
        raise BadParameter(str(error), param_hint="NAME") from None
    if as_json:
        print_fields({"token": made, "table": table})
        return
    echo(f"# Add to the file that {variable} names; the service reads it again by itself.\n{table}", err=True)
    echo(made)
