"""A client's TLS credentials from PEM files, which are reloaded when they change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recording.channel.watched import Watched

if TYPE_CHECKING:  # loaded with the first channel
    import grpc


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """The CA that a client trusts, and its own certificate and key."""

    ca: Path | None = None
    """None: the system's CAs."""
    certificate: Path | None = None
    key: Path | None = None


def channel_credentials(files: ClientFiles) -> "Callable[[], grpc.ChannelCredentials]":
    """Returns a function that gives the credentials for a new channel, from the current files.

    Raises:
        WrongFile: a file is missing, is not PEM, or the key is not the certificate's.
    """
    import grpc

    from recording.channel.certificates import check_certificates, check_pair  # only with TLS, since it loads slowly

    paths = [path for path in (files.ca, files.certificate, files.key) if path]

    def load(contents: Sequence[bytes]) -> "grpc.ChannelCredentials":
        found = dict(zip(paths, contents, strict=True))
        if files.ca:
            check_certificates(files.ca, found[files.ca])
        certificate, key = (found[path] if path else None for path in (files.certificate, files.key))
        if files.certificate and files.key and certificate and key:
            check_pair(files.certificate, certificate, files.key, key)
        return grpc.ssl_channel_credentials(found[files.ca] if files.ca else None, key, certificate)

    return Watched(paths, load).current
