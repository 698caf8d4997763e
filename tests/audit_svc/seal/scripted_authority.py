"""A time-stamping authority on a real port: `openssl ts -reply` behind HTTP, which can be made to lie."""

import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.audit_svc.seal.http_service import Answer, HttpService

_CONFIG = """
[tsa]
default_tsa = of_the_test
[of_the_test]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.3.6.1.4.1.57264.2
digests = {digests}
ess_cert_id_alg = sha256
"""


class Certificates:
    """A CA, an intermediate, and the certificate of who stamps, in files."""

    def __init__(self, folder: Path, days: int = 30) -> None:
        """days: until the last one ends; it began 60 days ago."""
        folder.mkdir(parents=True)
        self.ca, self.chain = folder / "ca.pem", folder / "chain.pem"
        self.signer, self.key = folder / "signer.pem", folder / "key.pem"
        root_key, middle_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        root = _certificate("Test Root", root_key, None, root_key, 3650)
        middle = _certificate("Test Issuer", middle_key, root, root_key, 3650)
        signer = _certificate("Test Time-Stamps", key, middle, middle_key, days)
        self.ca.write_bytes(root.public_bytes(Encoding.PEM))
        self.chain.write_bytes(middle.public_bytes(Encoding.PEM))
        self.signer.write_bytes(signer.public_bytes(Encoding.PEM))
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(60))
        .not_valid_after(now + timedelta(days))
    )
    if name == "Test Time-Stamps":
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = builder.add_extension(purpose, critical=True)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


class ScriptedAuthority(HttpService):
    """Stamps what it is sent."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificates = certificates
        self.digests = "sha256"
        self.change_query: Callable[[bytes], bytes] = bytes
        self.change_answer: Callable[[bytes], bytes] = bytes
        self.status, self.media_type = 200, "application/timestamp-reply"
        self.delay_seconds = 0.0
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/tsr"

    def stamp(self, query: bytes) -> bytes:
        """The answer of OpenSSL."""
        config, asked = self._folder / "tsa.cnf", self._folder / "query.tsq"
        config.write_text(_CONFIG.format(folder=self._folder, digests=self.digests))
        asked.write_bytes(query)
        files = self.certificates
        command: list[str | Path] = ["openssl", "ts", "-reply", "-config", config, "-queryfile", asked]
        command += ["-signer", files.signer, "-inkey", files.key, "-chain", files.chain]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def answer_to(self, path: str, headers: Message, body: bytes) -> Answer:
        assert headers["content-type"] == "application/timestamp-query"
        self.asked += 1
        time.sleep(self.delay_seconds)
        answer = self.change_answer(self.stamp(self.change_query(body)))
        return self.status, {"content-type": self.media_type}, answer
