"""Migrations of a store: files NNNN_name.up.sql and NNNN_name.down.sql, and what a database has of them."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audit_svc.errors import MigrationRefused

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.up\.sql")

State = Literal["applied", "pending", "edited", "unknown"]

Applied = tuple[int, str, str, int]
"""What a database says of a migration: its version, name, checksum, and when it was applied."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema, both ways."""

    version: int
    name: str
    up: str
    down: str

    @property
    def label(self) -> str:
        """NNNN_name, as its files are called."""
        return f"{self.version:04d}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the up file, in hexadecimal."""
        return hashlib.sha256(self.up.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Status:
    """Where one migration stands. applied_at is in milliseconds since 1970-01-01 UTC, None while pending."""

    version: int
    name: str
    state: State
    applied_at: int | None


def migrations_in(folder: Path) -> list[Migration]:
    """The migrations of folder by version. Versions may have gaps.

    Raises:
        MigrationRefused: two files have one version, or a down file is missing.
    """
    migrations: dict[int, Migration] = {}
    for up in sorted(folder.glob("*.up.sql")):
        match = _FILE.fullmatch(up.name)
        if match is None:
            raise MigrationRefused(f"{up.name} is not called NNNN_name.up.sql")
        down = up.with_name(up.name.replace(".up.sql", ".down.sql"))
        if not down.exists():
            raise MigrationRefused(f"{up.name} has no {down.name}")
        migration = Migration(int(match[1]), match[2], up.read_text(encoding="utf-8"), down.read_text(encoding="utf-8"))
        if migration.version in migrations:
            raise MigrationRefused(f"{up.name} has the version of {migrations[migration.version].label}")
        migrations[migration.version] = migration
    return [migrations[version] for version in sorted(migrations)]


def statuses_of(ledger: Iterable[Applied], migrations: Sequence[Migration]) -> list[Status]:
    """Where each migration stands, those that only the database knows included, by version."""
    applied = {version: (name, checksum, at) for version, name, checksum, at in ledger}
    known = {migration.version: migration for migration in migrations}
    statuses = []
    for version in sorted({*applied, *known}):
        name, checksum, at = applied.get(
            version, (known[version].name, "", None) if version in known else ("", "", None)
        )
        state: State = "applied"
        if version not in known:
            state = "unknown"
        elif version not in applied:
            state = "pending"
        elif (name, checksum) != (known[version].name, known[version].checksum):
            state = "edited"
        statuses.append(Status(version, name, state, at))
    return statuses


def waiting_of(statuses: Sequence[Status], migrations: Sequence[Migration]) -> list[Migration]:
    """The migrations that are still to be applied.

    Raises:
        MigrationRefused: a migration was edited, is unknown or out of order.
    """
    for entry in statuses:
        label = f"{entry.version:04d}_{entry.name}"
        if entry.state == "unknown":
            raise MigrationRefused(
                f"the database has migration {label}, which this version of audit-svc does not know: "
                "run the version that applied it, or a later one"
            )
        if entry.state == "edited":
            raise MigrationRefused(
                f"migration {label} was edited after it was applied: restore its file as it was, "
                "and put the change into a new migration"
            )
    applied = [entry.version for entry in statuses if entry.state == "applied"]
    waiting = [migration for migration in migrations if migration.version not in applied]
    if applied and waiting and waiting[0].version < applied[-1]:
        raise MigrationRefused(
            f"migration {waiting[0].label} comes before {applied[-1]:04d}, which is applied: give it a higher number"
        )
    return waiting
