"""PEM certificates: checks them, and reads their host names."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from recording.channel.watched import WrongFile, read_file
from recording.log import get_logger

log = get_logger(__name__)


def certificate_name(certificate: Path) -> str:
    """The first host name of the certificate.

    Raises:
        WrongFile: it cannot be read, or names no host.
    """
    try:
        first = _certificates(certificate, read_file(certificate))[0]
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    if not hosts:
        raise WrongFile(certificate, "names no host: make it with a subject alternative name, such as DNS:localhost")
    return hosts[0]


def check_pair(certificate_path: Path, certificate: bytes, key_path: Path, key: bytes) -> None:
    """Checks that a key belongs to a certificate. An expired certificate is logged.

    Raises:
        WrongFile: it does not, or one of the two is not PEM.
    """
    first = _certificates(certificate_path, certificate)[0]
    public = check_key(key_path, key).public_key()
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(*form) != first.public_key().public_bytes(*form):
        raise WrongFile(key_path, f"is not the key of {certificate_path}: give the two that were made together")
    if first.not_valid_after_utc < datetime.now(UTC):
        # Not refused: clients refuse it and say why, which is better than a service that does not start.
        log.error("tls.certificate_expired", path=str(certificate_path), since=first.not_valid_after_utc.isoformat())


def check_key(path: Path, content: bytes) -> PrivateKeyTypes:
    """The private key in the file at path. Raises WrongFile where it holds none, or one with a passphrase."""
    try:
        return load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise WrongFile(path, "is not a private key in PEM without a passphrase") from None


def check_certificates(path: Path, content: bytes) -> None:
    """Checks that the file at path holds certificates. Raises WrongFile."""
    _certificates(path, content)


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise WrongFile(path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
