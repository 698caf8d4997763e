"""The command `token`: makes a token, and the table that lets it in."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from service_kit.access.roles import Role, make_token


def add_token_command(app: typer.Typer, variable: str, roles: tuple[Role, ...]) -> None:
    """Adds the command to app. variable names the setting of the file; roles are those of the service."""

    @app.command()
    def token(
        name: Annotated[str, typer.Argument(help="Who the token is for.")],
        role: Annotated[list[Role], typer.Option(help="What it may do; may be repeated.")],
        days: Annotated[
            int | None, typer.Option(min=1, help="How long it is good for; for ever when not given.")
        ] = None,
    ) -> None:
        """Make a token. It goes to stdout, this once; the table for the list of callers goes to stderr."""
        if others := sorted(set(role) - set(roles)):
            raise typer.BadParameter(f"{', '.join(others)}: the roles here are {', '.join(roles)}", param_hint="--role")
        try:
            made, table = make_token(name, role, datetime.now(UTC) + timedelta(days=days) if days else None)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="NAME") from None
        typer.echo(f"# Add to the file that {variable} names; the service reads it again by itself.\n{table}", err=True)
        typer.echo(made)
