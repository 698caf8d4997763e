"""A ledger with rows of every kind, and a seal of it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from audit_svc.ledger.batch import read_batch
from audit_svc.seal.folder import KEY, VERIFIER, read_verifier
from audit_svc.seal.sealer import Sealer
from audit_svc.seal.verify import Report, verify
from audit_svc.sealing.places import FolderPlace, open_sealer
from audit_svc.sqlite.seal import leaves
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row

Record = Callable[..., None]
"""Records rows in one batch: see the fixture."""


class Seal:
    """The seal of a database, as tests handle it."""

    def __init__(self, database: Path, folder: Path | None = None) -> None:
        self.database = database
        self.folder = folder or database.with_name("seal")
        self.place = FolderPlace(database, self.folder)
        self.size = 0

    def open(self) -> Sealer:
        """The sealer: one at a time."""
        return open_sealer(self.place, self.folder / KEY, "ledger.example.com/test")

    def run(self) -> int:
        """Seals all, and returns how many leaves there are."""
        with self.open() as sealer:
            while sealer.step():
                pass
            return sealer.size

    def verify(self, *old_checkpoints: Path, key: str = "") -> Report:
        """Of the database as it is, with the key in the folder if no other is given."""
        with closing(self.place.open_ledger()) as ledger:
            verifier = read_verifier(key or str(self.folder / VERIFIER))
            return verify(ledger, self.place.open_log(), verifier, list(old_checkpoints))


@pytest.fixture
def seal(writer: Writer, database: Path) -> Seal:
    """Nothing is sealed yet."""
    return Seal(database)


@pytest.fixture
def record(writer: Writer) -> Record:
    """Records rows in one batch."""

    def record_all(**fields: Any) -> None:
        writer.record(read_batch(record_request(**fields), NOW_MS)).result()

    return record_all


def rows(count: int) -> dict[str, list[Any]]:
    """Tool calls and model requests, some with an error's text, and sessions in several revisions, in one batch."""
    return {
        "tool_calls": [
            audit_row(args_summary=f'{{"command": "ls {n} \u00e9 \u007f"}}', error="gone" if n % 5 == 0 else None)
            for n in range(count)
        ],
        "model_requests": [cost_row(error='no "such"\tmodel' if n % 2 else None) for n in range(count // 2)],
        "sessions": [
            session_row(id=f"session-{n % 3}", revision=n + 1, labels={"team": f"t{n}", "\u00e9": "x"})
            for n in range(count // 4)
        ],
    }


def change(database: Path, *statements: str) -> None:
    """What somebody does who can write to the file."""
    with closing(apsw.Connection(str(database))) as connection, connection:
        leaves.prepare(connection)
        for statement in statements:
            connection.execute(statement)
