"""TLS from files in PEM: a server's side and a client's, each reading its files again when they change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from service_kit.watched import Watched, WrongFile

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """What a server shows, and whom it lets in."""

    certificate: Path
    """The server's own first, then those between it and its root."""
    key: Path
    client_ca: Path | None = None
    """When set, a client must show a certificate that this CA has signed."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Which servers a client trusts, and what it shows them."""

    ca: Path | None = None
    """None: the system's CAs."""
    certificate: Path | None = None
    key: Path | None = None


def server_credentials(files: ServerFiles) -> grpc.ServerCredentials:
    """Credentials that take the files as they are at each handshake.

    Raises:
        WrongFile: a file is missing, is no PEM, or the key is not the certificate's.
    """
    paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]

    def load(contents: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
        certificate, key, *ca = contents
        _check_pair(files.certificate, certificate, files.key, key)
        if files.client_ca:
            _certificates(files.client_ca, ca[0])
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


def channel_credentials(files: ClientFiles) -> Callable[[], grpc.ChannelCredentials]:
    """Gives the credentials of the files as they are, for each new channel.

    Raises:
        WrongFile: as in server_credentials().
    """
    paths = [path for path in (files.ca, files.certificate, files.key) if path]

    def load(contents: Sequence[bytes]) -> grpc.ChannelCredentials:
        found = dict(zip(paths, contents, strict=True))
        if files.ca:
            _certificates(files.ca, found[files.ca])
        certificate, key = (found[path] if path else None for path in (files.certificate, files.key))
        if files.certificate and files.key and certificate and key:
            _check_pair(files.certificate, certificate, files.key, key)
        return grpc.ssl_channel_credentials(found[files.ca] if files.ca else None, key, certificate)

    return Watched(paths, load).current


def certificate_name(certificate: Path) -> str:
    """A host name that the certificate is for.

    Raises:
        WrongFile: it cannot be read, or names no host.
    """
    try:
        first = _certificates(certificate, certificate.read_bytes())[0]
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except OSError as error:
        raise WrongFile(f"{certificate}: cannot be read ({error.strerror})") from None
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    if not hosts:
        raise WrongFile(f"{certificate}: names no host: make it with a subject alternative name, such as DNS:localhost")
    return hosts[0]


def _check_pair(certificate_path: Path, certificate: bytes, key_path: Path, key: bytes) -> None:
    first = _certificates(certificate_path, certificate)[0]
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError):
        raise WrongFile(f"{key_path}: is no private key in PEM without a passphrase") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(*form) != first.public_key().public_bytes(*form):
        raise WrongFile(f"{key_path}: is not the key of {certificate_path}: give the two that were made together")
    if first.not_valid_after_utc < datetime.now(UTC):
        # Not refused: a service that ends because of a date is worse than one whose clients say why they stay away.
        log.error("tls.certificate_expired", path=str(certificate_path), since=first.not_valid_after_utc.isoformat())


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise WrongFile(f"{path}: holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
