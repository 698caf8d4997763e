"""A clock that jumped, over a restart: what the database remembers, what check says, and what the commands mend."""

from pathlib import Path

import pytest

from audit_svc.errors import ClockJumped
from audit_svc.ledger import clock
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.sql.care import check as care_check
from audit_svc.sqlite.care import prune
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.care.prune import prune_file, reset_mark_of_file
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from demo.processes import run_command, start_service
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


@pytest.mark.parametrize(
    ("days", "why"), [(3650, "not served in between, or the clock jumped"), (-730, "is or was wrong")]
)
def test_check_notes_a_clock_that_is_far_from_what_the_ledger_last_saw(database, monkeypatch, days, why):
    make_ledger(database, hours=1)
    right = clock.wall_ms
    monkeypatch.setattr(care_check, "wall_ms", lambda: right() + days * DAY_MS)
    notes = [
        found.detail for found in check(database, lambda *_: None) if (found.check, found.state) == ("clock", "note")
    ]
    assert any(why in note for note in notes)
    monkeypatch.setattr(care_check, "wall_ms", right)
    assert not any(found.state == "note" for found in check(database, lambda *_: None) if found.check == "clock")


@pytest.mark.long
def test_health_serves_and_says_that_the_clock_jumped(database):
    def said(days: int) -> str:
        env = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "FAULTS_CLOCK_DAYS": str(days)}
        with start_service("tests.faults.audit_service", env, "serve") as audit:
            while True:
                ran = run_command("audit_svc", {}, "health", "--target", audit.address, "--timeout", "30")
                if ran.returncode == 0:
                    return ran.stdout

    assert "ahead" not in said(0)
    assert "SERVING: the ledger's clock is 3650 days ahead" in said(3650)
    assert "ahead" not in said(0)


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
    connection = open_for_reading(database)
    ((by, asked),) = connection.execute("SELECT caller, filters FROM query_log WHERE method = 'Prune'")
    connection.close()
    assert (by, "reset_mark" in asked) == ("ada", True), "it is on the record who did it"
    *_, last = prune_file(database, ago(1), "ada")
    assert (last.pruned_before, last.removed.tool_calls) == (ago(1), 10)
    assert last.pruned_before % HOUR_MS == 0
