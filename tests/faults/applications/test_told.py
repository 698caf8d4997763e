"""The check after a round of applications can fail."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.applications.told import Told, look
from tests.faults.ledger import Findings

JOURNAL = "i a\nb a\ne a\na a\ni b\nb b\ni c\nb c\ne c\n"
"""a was recorded; the body of b never ended; that of c did, and its record did not return. The last line is cut."""


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", "succeeded", "1"), ("b", "interrupted", "2"), ("c", "succeeded", "3")], (0, 0)),
        ([("a", "succeeded", "1"), ("b", "interrupted", "2"), ("c", "interrupted", "3")], (0, 0)),
        ([("a", "succeeded", "1"), ("b", "succeeded", "2"), ("c", "succeeded", "3")], (1, 0)),
        ([("a", "succeeded", "1"), ("c", "succeeded", "3")], (1, 0)),
        ([("a", "succeeded", "1"), ("b", "interrupted", "2")], (1, 0)),
        (
            [("a", "succeeded", "1"), ("b", "interrupted", "2"), ("c", "succeeded", "3"), ("d", "succeeded", "1")],
            (0, 1),
        ),
    ],
    ids=["whole", "killed at its record", "said to have ended", "not told", "no intent", "under two ids"],
)
def test_what_is_not_told_or_told_twice_is_found(
    tmp_path: Path, rows: list[tuple[str, str, str]], expected: tuple[int, int]
) -> None:
    (tmp_path / "journal").write_text(JOURNAL + "i d")
    database = tmp_path / "audit.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE tool_call_log (id TEXT, outcome TEXT, turn_id TEXT)")
        connection.executemany("INSERT INTO tool_call_log VALUES (?, ?, ?)", rows)
    findings = Findings()
    look(database, Told.read(tmp_path / "journal"), findings)
    assert (findings.lost, findings.doubled) == expected
