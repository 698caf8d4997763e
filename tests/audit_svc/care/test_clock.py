"""A clock that jumped, over a restart: what the database remembers, what check says, and what the commands mend."""

from pathlib import Path

import pytest

from audit_svc.errors import ClockJumped
from audit_svc.ledger import clock
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.sqlite.care import prune
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.care.prune import prune_file, reset_mark_of_file
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from tests.audit_svc.aged import THIS_HOUR, ago, make_ledger

TEN_YEARS_MS = 3650 * DAY_MS


def wrong(database: Path) -> list[str]:
    return [f"{found.check}: {found.detail}" for found in check(database, lambda *_: None) if found.state == "wrong"]


def count(database: Path) -> int:
    connection = open_for_reading(database)
    ((rows,),) = connection.execute("SELECT count(*) FROM tool_call_log")
    connection.close()
    return int(rows)


def test_a_clock_ten_years_ahead_at_a_start_prunes_nothing(database, monkeypatch):
    make_ledger(database, hours=6)
    right = clock.wall_ms
    for module in (clock, prune):
        monkeypatch.setattr(module, "wall_ms", lambda: right() + TEN_YEARS_MS)
    with pytest.raises(ClockJumped, match="3650 days ahead"):
        list(prune_file(database, THIS_HOUR + TEN_YEARS_MS - 90 * DAY_MS, "retention"))
    assert count(database) == 60
    *_, last = prune_file(database, ago(3), "ada", confirm_clock=True)
    assert last.removed.tool_calls == 30
    # Confirmed for the next start too.
    list(prune_file(database, ago(2), "ada"))


def test_a_mark_in_the_future_is_wrong_and_can_be_set_back(database):
    """As an older version has left it, which believed such a clock, or a prune that was ended in the middle."""
    make_ledger(database, hours=2)
    connection = open_for_writing(database)
    connection.execute(
        "INSERT INTO pruned SELECT 1, ?, NULL, 0, 0, 0, 0, 0, 0, 0, 'retention', 0, NULL",
        (THIS_HOUR + TEN_YEARS_MS,),
    )
    connection.close()
    assert any("in the future" in finding and "--reset-mark" in finding for finding in wrong(database))
    with pytest.raises(ClockJumped, match="--reset-mark"):
        list(prune_file(database, ago(1), "retention"))
    assert count(database) == 20
    reset_mark_of_file(database, ago(48), "ada")
    assert wrong(database) == []
    *_, last = prune_file(database, ago(1), "ada")
    assert (last.pruned_before, last.removed.tool_calls) == (ago(1), 10)
    assert last.pruned_before % HOUR_MS == 0
