"""The command health, of each service."""

from typing import Annotated, NoReturn

from service_kit.access.tls import ServerFiles
from service_kit.client import current_access, refuse_wrong_target
from service_kit.probe import probe
from service_kit.terminal.command import Exit, Option, echo
from service_kit.terminal.printing import print_fields
from service_kit.unanswered import Peer

Timeout = Annotated[float, Option(help="Seconds to wait for the answer.")]
Live = Annotated[bool, Option("--live", help="Succeed if it answers at all, even that it cannot serve.")]


def tell_health(
    target: str, timeout: float, own: ServerFiles | None, peer: Peer, *, live: bool, as_json: bool
) -> NoReturn:
    """Says whether the service at target, where peer should run, serves. own: the files of a server on this machine.

    Raises:
        Exit: with 0 where it serves, else with 1.
        BadParameter: target is no address.
    """
    refuse_wrong_target(target)
    serves, said = probe(target, timeout, current_access(), own, live=live, peer=peer)
    if as_json:
        print_fields({"serves": serves, "said": said})
    else:
        echo(said, err=not serves)
    raise Exit(0 if serves else 1)
