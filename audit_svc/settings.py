"""The ledger's settings, from environment variables AUDIT_…, validated at start."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from service_kit.access.guard import GuardSettings
from service_kit.setting_types import (
    CertificateFile,
    Command,
    Count,
    FileOrDatabase,
    HomePath,
    HttpUrl,
    ListenAddress,
    NewFile,
    Seconds,
    SecondsOrZero,
    Target,
    Text,
    file_with,
)


def _check_witnesses(path: Path, content: bytes) -> None:
    from audit_svc.seal.outside.policy import check_policy  # only where there are some: it takes long to load

    check_policy(path, content)


WitnessesFile = Annotated[HomePath, file_with(_check_witnesses)]


class AuditSettings(GuardSettings):
    """What a deployment chooses."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_")

    listen: ListenAddress = "127.0.0.1:50052"
    db: FileOrDatabase = Field(Path("~/.local/state/onrecord/audit/audit.db"), validate_default=True)
    """An SQLite file, or the URL of a PostgreSQL database, which several services may share as replicas."""

    replica_address: Target | None = None
    """Where the other replicas of one PostgreSQL reach this service; the address that it listens on by default, and
    where that is every one of the machine's, the one that it reaches the database from."""

    replica_ca: CertificateFile | None = None
    """With TLS: the CA of the replicas' certificates; the system's by default."""

    queue_rows: Count = Field(50_000, ge=10_000)
    """Rows that may wait for the disk before producers must retry; the largest batch has 10,000."""

    retention_days: Count | None = Field(None, le=10_000)
    """Older rows are pruned, hour by hour; not set: never."""

    retention_args_days: Count | None = Field(None, le=10_000)
    """Texts of older rows are erased, day by day, and the rest of them stays; not set: never. No more than
    retention_days, after which there are no rows."""

    seal_seconds: SecondsOrZero = 1.0
    """How often what was committed is sealed; 0: never."""

    seal_dir: NewFile | None = None
    """The folder of the seal; FILE.seal beside the database by default."""

    seal_max_lag_seconds: Seconds = 60
    """Further behind, the seal is told as trouble: in the log, in health's detail, by a metric."""

    seal_key_file: NewFile | None = None
    """The signing key, made at the first start; `key` in the seal's folder by default."""

    seal_origin: Text | None = None
    """The log's name, chosen before its key is made: a name that is yours, such as ledger.example.com/agents."""

    seal_witnesses: WitnessesFile | None = None
    """Who watches the log: the lines `witness NAME KEY [URL]` of a file of https://c2sp.org/tlog-policy."""

    seal_hook: Command | None = None
    """Gets each new checkpoint on its stdin, and has taken it when it ends with 0."""

    seal_outside_seconds: Seconds = 60
    """How often witnesses with a URL and the hook get the newest checkpoint, where there is a new one."""

    seal_timestamp_url: HttpUrl | None = None
    """A time-stamping authority (RFC 3161), which stamps checkpoints by HTTP; it needs seal_timestamp_ca."""

    seal_timestamp_ca: CertificateFile | None = None
    """The CA of the authority's certificate, in PEM, by which each stamp is checked before it is kept."""

    seal_timestamp_seconds: Seconds = 3600
    """From one stamp to the next, where there is a new checkpoint."""

    check_days: Count = Field(30, le=10_000)
    """After as many, and after an end that was not clean, the whole file is checked beside the service."""

    @property
    def database_file(self) -> Path:
        """Of SQLite, where there is no database_url."""
        return Path(self.db)

    @property
    def database_url(self) -> str | None:
        """Of PostgreSQL; None where the database is a file."""
        return self.db if isinstance(self.db, str) else None

    @model_validator(mode="after")
    def _stamps_are_checked(self) -> Self:
        if (self.seal_timestamp_url is None) != (self.seal_timestamp_ca is None):
            raise ValueError(
                "AUDIT_SEAL_TIMESTAMP_URL and AUDIT_SEAL_TIMESTAMP_CA: set both, since no stamp is kept before it is "
                "checked by the authority's CA"
            )
        return self

    @model_validator(mode="after")
    def _texts_go_no_later_than_rows(self) -> Self:
        if self.retention_days and self.retention_args_days and self.retention_args_days > self.retention_days:
            raise ValueError(
                f"AUDIT_RETENTION_ARGS_DAYS: {self.retention_args_days} days are more than AUDIT_RETENTION_DAYS, and "
                "texts cannot outlive their rows: set it to no more, or leave it out"
            )
        return self
