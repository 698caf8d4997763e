"""Sealers that get in each other's way, or are cut off, make one log."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_svc.errors import StoreUnavailable
from audit_svc.postgres.seal.log import PostgresLog
from audit_svc.seal.errors import BadLog, InUse
from recording.transparency.errors import BadKey
from tests.audit_svc.postgres.sealed import PostgresSeal, Record
from tests.audit_svc.samples import audit_row

pytestmark = pytest.mark.postgres


def test_two_sealers_never_go_on_from_the_same_checkpoint(filled: PostgresSeal, record: Record):
    with filled.open() as first, filled.open() as second:
        assert not first.step()
        with pytest.raises(InUse, match="another process seals this ledger"):
            second.step()
        record(tool_calls=[audit_row()])
        filled.copy()
        with pytest.raises(InUse):  # the loser looks again before it signs anything
            second.step()
    assert filled.run() == 72
    assert not filled.verify().problems


def test_sealers_that_take_turns_make_one_log(filled: PostgresSeal, record: Record):
    chance = random.Random(7)
    sealers = [filled.open(), filled.open()]
    lost = 0
    for _ in range(30):
        record(tool_calls=[audit_row() for _ in range(chance.randrange(4))] or [audit_row()])
        filled.copy()
        which = chance.randrange(2)
        try:
            sealers[which].step()
        except InUse:
            lost += 1
            sealers[which].__exit__()
            sealers[which] = filled.open()
    for sealer in sealers:
        sealer.__exit__()
    filled.run()
    assert lost > 5
    assert not filled.verify().problems


def test_a_log_is_begun_once(filled: PostgresSeal, tmp_path: Path):
    with filled.open():
        other = PostgresSeal(filled.place.url, filled.connection, tmp_path / "others", filled.database)
        other.key.parent.mkdir()
        with pytest.raises(BadKey, match="is missing, with which the log in the ledger's database was begun"):
            other.open()


def test_a_log_without_its_checkpoint_is_not_begun_anew(filled: PostgresSeal):
    filled.run()
    filled.change("DELETE FROM seal_files WHERE path = 'checkpoint'")
    with pytest.raises(BadLog, match="has a log and no checkpoint"):
        filled.run()


def test_a_sealer_whose_connection_dies_at_any_statement_leaves_a_log_that_goes_on(
    filled: PostgresSeal,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
):
    left, deaths = 0, 0

    def dying(do: Callable[..., Any]) -> Callable[..., Any]:
        def run(log: PostgresLog, *given: Any) -> Any:
            nonlocal left
            left -= log._is_changing
            if left == 0 and log._is_changing and log._opened:
                log._opened.raw.pgconn.finish()
            return do(log, *given)

        return run

    for name in ("all", "run_many"):
        monkeypatch.setattr(PostgresLog, name, dying(getattr(PostgresLog, name)))
    for at in range(2, 26):
        record(tool_calls=[audit_row() for _ in range(17)])
        filled.copy()
        left = 1 + at % 11
        try:
            filled.run()
        except StoreUnavailable:
            deaths += 1
        left = 0
        assert filled.run() == 71 + 17 * (at - 1)
        assert not filled.verify().problems
    assert deaths > 15
