"""The commands' access to a running service: TLS and token, from options or from ONRECORD_… variables.

gRPC is loaded where a channel is made: who asks for help or reads a file need not wait for it.
"""

import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from service_kit.terminal.command import BadParameter, Option
from service_kit.terminal.failures import Failed

if TYPE_CHECKING:
    import grpc

    from recording.channel.tls import ClientFiles
    from recording.channel.token import Metadata


class ClientAccess(NamedTuple):
    """A client's CA and credentials. Without a CA it uses plain text."""

    files: "ClientFiles | None" = None
    token_file: Path | None = None

    def credentials(self) -> "grpc.ChannelCredentials | None":
        """For a new channel; None for plain text.

        Raises:
            WrongFile: a file cannot be used.
        """
        if self.files is None:
            return None
        from recording.channel.tls import channel_credentials

        return channel_credentials(self.files)()

    def metadata(self) -> "Metadata":
        """For each call.

        Raises:
            WrongFile: the token's file cannot be used.
        """
        if self.token_file is None:
            return ()
        from recording.channel.token import token_metadata, watch_token

        return token_metadata(watch_token(self.token_file).current())


_USUAL = re.compile(r"[A-Za-z0-9]+([.-][A-Za-z0-9]+)*:[1-9][0-9]{0,4}")
_VARIABLES = ("AUDIT_LISTEN", "GATEWAY_LISTEN", "INTAKE_LISTEN")
"""Those that name a service where no option does."""

how_to_start = ""
"""What a person may say to start a service, for a program that can."""

nothing_runs = ""
"""Why there is nobody to ask, for a program that knows; empty where somebody may answer."""

where_now: Callable[[str], str] | None = None
"""Where what was at an address is now, for a program that knows."""

why_ended: Callable[[], str] | None = None
"""Why what a command asks has ended, or ends, for a program that knows; empty where it does not."""

_ACCESS: ContextVar[ClientAccess] = ContextVar("access", default=ClientAccess())  # noqa: B039 - it is frozen


def client_options(
    ca: Annotated[
        Path | None, Option(envvar="ONRECORD_CA", help="The CA of the services, in PEM; plain text without.")
    ] = None,
    cert: Annotated[Path | None, Option(envvar="ONRECORD_CERT", help="A certificate to show, in PEM.")] = None,
    key: Annotated[Path | None, Option(envvar="ONRECORD_KEY", help="Its key.")] = None,
    token_file: Annotated[Path | None, Option(envvar="ONRECORD_TOKEN_FILE", help="A file that holds a token.")] = None,
) -> None:
    """Takes what all commands that call a running service have in common."""
    if (cert is None) != (key is None) or (cert and not ca):
        raise BadParameter("--cert, --key and --ca belong together")
    files = None
    if ca:
        from recording.channel.tls import ClientFiles

        files = ClientFiles(ca, cert, key)
    _ACCESS.set(ClientAccess(files, token_file))


def open_channel(target: str) -> "tuple[grpc.aio.Channel, Metadata]":
    """A channel to target, and the metadata of its calls, as the options of the command that runs say.

    Raises:
        Failed: a file cannot be used, or nothing runs.
        BadParameter: target is no address.
    """
    import grpc

    from recording.channel.options import CLIENT_OPTIONS

    credentials, metadata = _access(target)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=CLIENT_OPTIONS), metadata
    return grpc.aio.secure_channel(target, credentials, options=CLIENT_OPTIONS), metadata


def open_blocking_channel(target: str) -> "tuple[grpc.Channel, Metadata]":
    """As open_channel(), without an event loop."""
    import grpc

    from recording.channel.options import CLIENT_OPTIONS

    credentials, metadata = _access(target)
    if credentials is None:
        return grpc.insecure_channel(target, CLIENT_OPTIONS), metadata
    return grpc.secure_channel(target, credentials, CLIENT_OPTIONS), metadata


def refuse_wrong_target(target: str, option: str = "--target") -> None:
    """Raises BadParameter where target is no address that a client can call. option: by which it was given."""
    if _USUAL.fullmatch(target) and int(target.rpartition(":")[2]) <= 65535:
        return
    from service_kit.setting_types import check_target  # takes long to load, and most are usual

    hint = next((name for name in _VARIABLES if target and os.environ.get(name) == target), option)
    scheme, separator, _ = target.partition("://")
    if not target:
        raise BadParameter("is empty: give host:port", hint)
    if separator and scheme != "dns":
        raise BadParameter(f"{target!r} is a URL: give host:port, without {scheme}://", hint)
    if ":" not in target:
        raise BadParameter(f"{target!r} has no port: give host:port", hint)
    if target.startswith(":"):
        raise BadParameter(f"{target!r} has no host: give host:port", hint)
    try:
        check_target(target)
    except ValueError as error:
        raise BadParameter(f"{target!r} is not an address: it {error}", hint) from None


def current_access() -> ClientAccess:
    """What client_options() took."""
    return _ACCESS.get()


def _access(target: str) -> "tuple[grpc.ChannelCredentials | None, Metadata]":
    if nothing_runs:
        raise Failed(nothing_runs)
    refuse_wrong_target(target)
    from recording.channel.watched import WrongFile

    access = current_access()
    try:
        return access.credentials(), access.metadata()
    except WrongFile as error:
        raise Failed(str(error), 2) from None
