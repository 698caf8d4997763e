"""The settings of a service that records."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from service_kit.access.guard import GuardSettings
from service_kit.access.roles import CallerName
from service_kit.setting_types import Bytes, CertificateFile, KeyFile, KeysFile, SecondsOrZero, Target, TokenFile
from service_kit.settings import Settings


def check_log_key(text: str) -> str:
    """A log's verifier key, or nothing. Raises ValueError."""
    if text:
        from recording.transparency.errors import BadKey  # only with a key: it takes long to load
        from recording.transparency.note import Verifier

        try:
            Verifier.parse(text)
        except BadKey as error:
            raise ValueError(str(error)) from None
    return text.strip()


LogKey = Annotated[str, AfterValidator(check_log_key)]


class ProducerSettings(GuardSettings):
    """The settings that all services which record have, under prefixes of their own."""

    audit_target: Target = "127.0.0.1:50052"
    audit_tls_ca: CertificateFile | None = Field(
        None, description="PEM; when set, the audit service is called with TLS"
    )
    audit_tls_cert: CertificateFile | None = Field(None, description="PEM; shown to an audit service that asks for it")
    audit_tls_key: KeyFile | None = None
    audit_token_file: TokenFile | None = Field(None, description="the token for the audit service alone")
    producer_name: CallerName = Field("", description="this service's name on the ledger's list")
    spool_max_bytes: Bytes = Field(2**30, ge=2**20)
    witness_seconds: SecondsOrZero = Field(
        60, description="how often the ledger's log is looked at, besides on connecting; 0: never"
    )
    args_key_file: KeysFile | None = Field(
        None, description="keys of the digests of arguments, shared with other producers; one of its own when not given"
    )
    audit_log_key: LogKey = Field("", description="the verifier key of the ledger's log; empty: the first that is seen")
    spool_keep_acked_bytes: int = Field(
        64 * 2**20, ge=0, le=2**50, description="how much of what is acknowledged stays on disk; 0 keeps none"
    )

    @model_validator(mode="after")
    def _check_audit_tls(self) -> Self:
        check_client_tls(self, "audit", "the audit service")
        return self


def check_client_tls(settings: Settings, way: str, service: str) -> None:
    """Looks whether the settings of a client's TLS, {way}_tls_ca, _cert and _key, belong together.

    Raises:
        ValueError: they do not.
    """
    prefix = f"{settings.model_config.get('env_prefix', '')}{way.upper()}"
    ca, cert, key = (getattr(settings, f"{way}_tls_{name}") for name in ("ca", "cert", "key"))
    if (cert is None) != (key is None):
        missing, given = ("KEY", "CERT") if cert else ("CERT", "KEY")
        raise ValueError(f"{prefix}_TLS_{missing}: is not set, but {prefix}_TLS_{given} is: give both")
    if cert and not ca:
        raise ValueError(f"{prefix}_TLS_CA: is not set: name the file of the CA that signed {service}")
