"""The commands' access to a running service: TLS and token, from options or from ONRECORD_… variables."""

from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import typer

from recording.channel.options import CLIENT_OPTIONS
from recording.channel.tls import ClientFiles, channel_credentials
from recording.channel.token import Metadata, token_metadata, watch_token
from recording.channel.watched import WrongFile


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """A client's CA and credentials. Without a CA it uses plain text."""

    files: ClientFiles | None = None
    token_file: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a new channel; None for plain text.

        Raises:
            WrongFile: a file cannot be used.
        """
        return channel_credentials(self.files)() if self.files else None

    def metadata(self) -> Metadata:
        """For each call.

        Raises:
            WrongFile: the token's file cannot be used.
        """
        return token_metadata(watch_token(self.token_file).current()) if self.token_file else ()


_ACCESS: ContextVar[ClientAccess] = ContextVar("access", default=ClientAccess())  # noqa: B039 - it is frozen


def client_options(
    ca: Annotated[
        Path | None, typer.Option(envvar="ONRECORD_CA", help="The CA of the services, in PEM; plain text without.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(envvar="ONRECORD_CERT", help="A certificate to show, in PEM.")] = None,
    key: Annotated[Path | None, typer.Option(envvar="ONRECORD_KEY", help="Its key.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="ONRECORD_TOKEN_FILE", help="A file that holds a token.")
    ] = None,
) -> None:
    """Takes what all commands that call a running service have in common."""
    if (cert is None) != (key is None) or (cert and not ca):
        raise typer.BadParameter("--cert, --key and --ca belong together")
    _ACCESS.set(ClientAccess(ClientFiles(ca, cert, key) if ca else None, token_file))


def open_channel(target: str) -> tuple[grpc.aio.Channel, Metadata]:
    """A channel to target, and the metadata of its calls, as the options of the command that runs say.

    Raises:
        typer.Exit: a file cannot be used; a sentence on stderr says which.
    """
    access = current_access()
    try:
        credentials, metadata = access.credentials(), access.metadata()
    except WrongFile as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=CLIENT_OPTIONS), metadata
    return grpc.aio.secure_channel(target, credentials, options=CLIENT_OPTIONS), metadata


def current_access() -> ClientAccess:
    """What client_options() took."""
    return _ACCESS.get()
