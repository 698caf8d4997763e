"""How a client comes in to a service."""

from dataclasses import dataclass, field
from pathlib import Path

import grpc

from recording.channel.tls import ClientFiles, channel_credentials
from recording.channel.token import token_metadata, watch_token


@dataclass(frozen=True, slots=True)
class Access:
    """What a client trusts and shows. Without a CA it speaks plain text; without a token it shows none."""

    ca: Path | str | None = None
    """The CA of the service's certificate, a file in PEM."""
    cert: Path | str | None = None
    """A certificate to show, a file in PEM; it needs key and ca."""
    key: Path | str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | str | None = None
    """A file that holds a token and nothing else; it is read again when it changes."""

    def files(self) -> ClientFiles | None:
        """The files of TLS; None for plain text.

        Raises:
            ValueError: a certificate, its key and a CA belong together.
        """
        if (self.cert is None) != (self.key is None) or (self.cert and not self.ca):
            raise ValueError("cert, key and ca belong together")
        if self.ca is None:
            return None
        return ClientFiles(Path(self.ca), _path(self.cert), _path(self.key))

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a new channel; None for plain text.

        Raises:
            ValueError: see files().
            WrongFile: a file cannot be used.
        """
        files = self.files()
        return channel_credentials(files)() if files else None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """For each call.

        Raises:
            WrongFile: the token's file cannot be used.
        """
        if self.token_file is not None:
            return tuple(token_metadata(watch_token(Path(self.token_file)).current()))
        return tuple(token_metadata(self.token)) if self.token else ()


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
