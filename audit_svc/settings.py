"""The ledger's settings, from environment variables AUDIT_…, validated at start."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service_kit.access.guard import Address, GuardSettings
from service_kit.settings import HomePath


class AuditSettings(GuardSettings):
    """What a deployment chooses."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_", env_ignore_empty=True)

    listen: Address = "127.0.0.1:50052"
    db: HomePath = Field(Path("~/.local/state/onrecord/audit/audit.db"), validate_default=True)
    queue_rows: int = Field(50_000, ge=10_000)
    """Rows that may wait for the disk before producers are told to come again; the largest batch has 10,000."""

    retention_days: int | None = Field(None, ge=1, le=10_000)
    """What began longer ago is pruned, hour by hour; nothing is when this is not set."""
