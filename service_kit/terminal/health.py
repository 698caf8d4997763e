"""The command health, of each service."""

from typing import Annotated, NoReturn

from service_kit.access.tls import ServerFiles
from service_kit.client import current_access, refuse_wrong_target
from service_kit.probe import probe
from service_kit.terminal.command import Exit, Option
from service_kit.terminal.printing import Printer, ago, print_fields
from service_kit.unanswered import Peer

Timeout = Annotated[float, Option(help="Seconds to wait for the answer.")]
Live = Annotated[bool, Option("--live", help="Succeed if it answers at all, even that it cannot serve.")]


def tell_health(
    target: str, timeout: float, own: ServerFiles | None, peer: Peer, *, live: bool, as_json: bool
) -> NoReturn:
    """Says whether the service at target, where peer should run, serves, and to people how long ago it looked.

    own: the files of a server on this machine.

    Raises:
        Exit: with 0 where it serves, else with 1.
        BadParameter: target is no address.
    """
    refuse_wrong_target(target)
    serves, said, age_ms = probe(target, timeout, current_access(), own, live=live, peer=peer)
    if as_json:
        print_fields({"serves": serves, "said": said, "age_ms": age_ms})
    else:
        Printer(stderr=not serves).print(said)
        if age_ms is not None and age_ms >= 1000 and (err := Printer(stderr=True)).is_terminal:
            err.print(f"last checked {ago(age_ms)}", style="dim")
    raise Exit(0 if serves else 1)
