"""A server's TLS from files in PEM, which are read again when they change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from recording.channel.watched import Watched


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """A server's certificate, and the CA of its clients."""

    certificate: Path
    """The server's own first, then those between it and its root."""
    key: Path
    client_ca: Path | None = None
    """When set, a client must show a certificate that this CA has signed."""


def server_credentials(files: ServerFiles) -> grpc.ServerCredentials:
    """Credentials that take the files as they are at each handshake.

    Raises:
        WrongFile: a file is missing, is no PEM, or the key is not the certificate's.
    """
    from recording.channel.certificates import check_certificates, check_pair  # only with TLS: it takes long to load

    paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]

    def load(contents: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
        certificate, key, *ca = contents
        check_pair(files.certificate, certificate, files.key, key)
        if files.client_ca:
            check_certificates(files.client_ca, ca[0])
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca[0] if ca else None)

    watched = Watched(paths, load)
    first = shown = watched.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        if (now := watched.current()) is shown:
            return None  # what TLS has stays, and with it the sessions that clients resume
        shown = now
        return now

    return grpc.dynamic_ssl_server_credentials(
        first,
        changed,  # type: ignore[arg-type]  # the types know nothing of None for "as before"
        require_client_authentication=files.client_ca is not None,
    )
