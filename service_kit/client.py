"""How the command lines come in to a running service: TLS and token, from options or from ONRECORD_… variables."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import typer

from service_kit.server import CLIENT_OPTIONS
from service_kit.tls import ClientFiles, channel_credentials
from service_kit.watched import Watched, WrongFile

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """What a client trusts and shows. Without a CA it speaks plain text."""

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


def watch_token(path: Path) -> Watched[str]:
    """The token in a file that holds nothing else.

    Raises:
        WrongFile: it cannot be read, is empty, or holds more than one word.
    """

    def load(contents: Sequence[bytes]) -> str:
        words = contents[0].decode(errors="replace").split()
        if len(words) != 1 or not words[0].isascii():
            raise WrongFile(f"{path}: must hold a token and nothing else")
        return words[0]

    return Watched([path], load)


def token_metadata(token: str) -> Metadata:
    """What a call carries to show token."""
    return (("authorization", f"Bearer {token}"),)


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
