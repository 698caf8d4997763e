"""What a client needs to connect to a service."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recording.channel.token import token_metadata, watch_token

if TYPE_CHECKING:
    import grpc

    from recording.channel.tls import ClientFiles


@dataclass(frozen=True, slots=True)
class Access:
    """The CA that a client trusts, and its credentials. Without a CA the connection is plain text."""

    ca: Path | str | None = None
    """The CA of the service's certificate, a PEM file."""
    cert: Path | str | None = None
    """The client's certificate, a PEM file; needs key and ca."""
    key: Path | str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | str | None = None
    """A file that holds a token and nothing else; it is reloaded when it changes."""

    def check(self) -> None:
        """Raises ValueError if only some of cert, key and ca are given."""
        if (self.cert is None) != (self.key is None) or (self.cert and not self.ca):
            raise ValueError("cert, key and ca belong together")

    def files(self) -> "ClientFiles | None":
        """The files for TLS; None for plain text. Raises as check()."""
        from recording.channel.tls import ClientFiles  # gRPC is an extra, which only who connects needs

        self.check()
        if self.ca is None:
            return None
        return ClientFiles(Path(self.ca), _path(self.cert), _path(self.key))

    def credentials(self) -> "grpc.ChannelCredentials | None":
        """The credentials of a new channel; None for plain text.

        Raises:
            ValueError: only some of cert, key and ca are given.
            WrongFile: a file cannot be used.
        """
        from recording.channel.tls import channel_credentials

        files = self.files()
        return channel_credentials(files)() if files else None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of each call.

        Raises:
            WrongFile: the token's file cannot be used.
        """
        if self.token_file is not None:
            return tuple(token_metadata(watch_token(Path(self.token_file)).current()))
        return tuple(token_metadata(self.token)) if self.token else ()


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
