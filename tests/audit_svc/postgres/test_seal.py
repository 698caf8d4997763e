"""A ledger in PostgreSQL is sealed into a log in tables, and what is changed there is told."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_svc.postgres.open.connection import connect
from audit_svc.seal.errors import Rewritten
from audit_svc.seal.tiles import Tiles
from tests.audit_svc.postgres.sealed import PostgresSeal, Record
from tests.audit_svc.seal.conftest import rows

pytestmark = pytest.mark.postgres


def test_a_ledger_is_sealed_and_verified(filled: PostgresSeal, record: Record):
    assert filled.run() == 40 + 20 + 10 + 1
    record(**rows(8), last=9)
    filled.copy()
    assert filled.verify().unsealed == {"tool_call": 8, "model_request": 4, "gap": 1}
    assert filled.run() == 71 + 13
    report = filled.verify()
    assert (report.problems, report.rows, report.unsealed) == ([], 84, {})


def test_the_log_is_the_one_of_a_folder(filled: PostgresSeal, tmp_path: Path):
    """Whoever takes its files to a folder has tlog-tiles that every tool reads."""
    size = filled.run()
    with closing(filled.place.open_log()) as log:
        tiles = Tiles(log, size)
        checkpoint = log.read("checkpoint")
        assert checkpoint
        assert f"\n{size}\n".encode() in checkpoint
        for level in range(2):
            assert tiles.tile(level, 0) if size >> 8 * level else True
        assert log.read_below("tile/0/000.p") == {str(size): log.read(f"tile/0/000.p/{size}")}
        assert log.read_below("tile/0/000") == {}
        log.write({"cosigned/00aabbcc": b"x"})
        assert log.read_below("cosigned") == {"00aabbcc": b"x"}
        log.remove("cosigned/00aabbcc")
        assert log.read("cosigned/00aabbcc") is None


CHANGES = {
    "a field": "UPDATE tool_call_log SET recorded_by = 'mallory' WHERE position = 7",
    "a text": "UPDATE tool_call_log SET args_summary = '{}' WHERE position = 7",
    "a salt": "UPDATE tool_call_log SET salt = 'x' WHERE position = 7",
    "a number": "UPDATE cost_log SET cost_micros = 1 WHERE position = 3",
    "a row": "DELETE FROM cost_log WHERE position = 3",
    "a row among others": "DELETE FROM gap_log WHERE position = 1",
    "a session": "UPDATE sessions SET turns = turns + 1 WHERE id = 'session-1'",
    "a session's labels": "UPDATE session_labels SET value = 'other' WHERE session_id = 'session-1' AND key = 'team'",
    "a session that is gone": "DELETE FROM sessions WHERE id = 'session-1'",
    "texts without an entry": "UPDATE tool_call_log SET erased = '{}', salt = NULL WHERE position = 7",
    "texts that no JSON keeps": "UPDATE tool_call_log SET erased = '{', args_summary = '[erased]' WHERE position = 7",
    "the last row": "UPDATE tool_call_log SET tool_name = 'x' WHERE position = 40",
    "a tile": r"UPDATE seal_files SET data = set_byte(data, 5, get_byte(data, 5) # 1) WHERE path LIKE 'tile/0/%'",
    "a tile that is gone": "DELETE FROM seal_files WHERE path LIKE 'tile/0/%'",
    "the checkpoint": "UPDATE seal_files SET data = data || 'x'::bytea WHERE path = 'checkpoint'",
    "a run of the index": "UPDATE seal_runs SET first_position = first_position + 1 WHERE kind = 'model_request'",
    "the index": "DELETE FROM seal_runs",
    "two rows": (
        "UPDATE tool_call_log SET position = -1 WHERE position = 7; "
        "UPDATE tool_call_log SET position = 7 WHERE position = 8; "
        "UPDATE tool_call_log SET position = 8 WHERE position = -1"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_the_owner_of_thedatabase_is_told(filled: PostgresSeal, change: str):
    filled.run()
    filled.change(CHANGES[change])
    assert filled.verify().problems
    if change == "the last row":
        with pytest.raises(Rewritten, match="is another"):
            filled.run()


def test_what_was_rolled_back_with_its_seal_is_told_by_an_old_checkpoint_alone(
    filled: PostgresSeal,
    postgres_server: Any,
    tmp_path: Path,
    record: Record,
):
    """The owner of the database puts an older state of it back, rows and log alike."""
    filled.run()
    kept = tmp_path / "kept"
    name = filled.place.url.rpartition("/")[2]
    filled.connection.close()
    older = postgres_server.create_database(f"{name}_older", name)
    with closing(connect(filled.place.url, writes=True)) as connection:
        filled.connection = connection
        record(**rows(4), last=7)
        filled.copy()
        filled.run()
        with closing(filled.place.open_log()) as log:
            kept.write_bytes(log.read("checkpoint") or b"")
    assert not filled.verify(kept).problems
    restored = PostgresSeal(older, connection, tmp_path / "keys", filled.database)
    assert not restored.verify().problems
    (told,) = restored.verify(kept).problems
    assert "it was rolled back" in told


def test_a_restore_is_accepted_and_a_key_is_changed(filled: PostgresSeal):
    size = filled.run()
    filled.change("DELETE FROM tool_call_log WHERE position > 37")
    with pytest.raises(Rewritten):
        filled.run()
    with filled.open() as sealer:
        restore = sealer.accept_restore("the disk died", "ada")
        assert restore.lost["tool_call"] == 3
        sealer.rotate_key("to be sure", "ada")
        sealer.retire_key("all have it", "ada")
    assert filled.run() == size + 3
    report = filled.verify()
    assert (report.problems, report.lost, len(report.key_changes)) == ([], 3, 2)
