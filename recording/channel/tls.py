"""A client's TLS from files in PEM, which are read again when they change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from recording.channel.watched import Watched


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Which servers a client trusts, and what it shows them."""

    ca: Path | None = None
    """None: the system's CAs."""
    certificate: Path | None = None
    key: Path | None = None


def channel_credentials(files: ClientFiles) -> Callable[[], grpc.ChannelCredentials]:
    """Gives the credentials of the files as they are, for each new channel.

    Raises:
        WrongFile: as in server_credentials().
    """
    from recording.channel.certificates import check_certificates, check_pair  # only with TLS: it takes long to load

    paths = [path for path in (files.ca, files.certificate, files.key) if path]

    def load(contents: Sequence[bytes]) -> grpc.ChannelCredentials:
        found = dict(zip(paths, contents, strict=True))
        if files.ca:
            check_certificates(files.ca, found[files.ca])
        certificate, key = (found[path] if path else None for path in (files.certificate, files.key))
        if files.certificate and files.key and certificate and key:
            check_pair(files.certificate, certificate, files.key, key)
        return grpc.ssl_channel_credentials(found[files.ca] if files.ca else None, key, certificate)

    return Watched(paths, load).current
