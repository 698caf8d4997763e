"""A decision and its result in exports of their own: one row, whatever is sent again, and however the door ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from intake_svc.calls.call import NEVER_ENDED
from intake_svc.calls.calls import Calls
from intake_svc.calls.journal import Journal
from intake_svc.dialects import Reading
from tests.intake_svc.conftest import wait_for
from tests.intake_svc.dialects.exports import log_records, put, read, sample
from tests.intake_svc.dialects.test_decisions import CLAUDE, CODEX, without
from tests.intake_svc.exports import post

EVENTS = {CLAUDE: ("tool_decision", "tool_result"), CODEX: ("codex.tool_decision", "codex.tool_result")}
INTERRUPTED, PERSON = common_pb2.OUTCOME_INTERRUPTED, common_pb2.DECISION_SOURCE_PERSON


class Desk:
    """The door's calls, without the door; `stored` is what the ledger has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stored: dict[str, audit_pb2.AuditRow] = {}
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.folder)
        self.calls = Calls(self.journal, None, 0.0, 0.0)

    def restart(self) -> None:
        """As a kill leaves it: nothing is written at the end."""
        self.journal.close()
        self.open()

    def take(self, reading: Reading, *, answered: bool = True) -> None:
        """An export; the door is killed before the answer where it is not answered."""
        self.calls.decide(reading.intents)
        joined = self.calls.join(reading.calls)
        self.store(joined.rows)
        if not answered:
            return self.restart()
        return self.calls.settle(joined)

    def store(self, rows: list[audit_pb2.AuditRow]) -> bool:
        for row in rows:
            assert self.stored.setdefault(row.id, row) == row, "a conflict"
        return True

    def flush(self) -> None:
        self.calls.flush(self.store)


@contextmanager
def desk_in(folder: str) -> Iterator[Desk]:
    desk = Desk(Path(folder))
    try:
        yield desk
    finally:
        desk.journal.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_in(str(tmp_path)) as desk:
        yield desk


def apart(name: str, **decision: str) -> tuple[Reading, Reading]:
    """The decision and the result of a sample's one call."""
    first, second = sample(name), sample(name)
    for export in (first, second):
        (record,) = log_records(export, EVENTS[name][0])
        put(record.attributes, **decision)
        for result in log_records(export, EVENTS[name][1]):
            put(result.attributes, decision_type=None, decision_source=None)
    return read(without(first, EVENTS[name][1])), read(without(second, EVENTS[name][0]))


@pytest.mark.parametrize(("name", "said"), [(CLAUDE, ("accept", "user_temporary")), (CODEX, ("approved", "User"))])
def test_the_row_of_the_result_has_the_decision_that_came_before_it(desk, name, said):
    decided, ended = apart(name, decision=said[0], source=said[1])
    desk.take(decided)
    assert not desk.stored
    desk.restart()
    desk.take(ended)
    (row,) = desk.stored.values()
    assert (row.decision.source, row.decision.verdict) == (PERSON, common_pb2.VERDICT_ALLOWED)
    (alone,) = ended.calls
    assert (row.outcome, row.created_at_ms, row.duration_ms) == (alone.outcome, alone.created_at_ms, alone.duration_ms)


@pytest.mark.parametrize("name", [CLAUDE, CODEX])
def test_a_call_without_a_result_is_interrupted_and_a_late_result_is_no_second_call(desk, name):
    decided, ended = apart(name)
    desk.take(decided)
    desk.flush()
    desk.take(ended)
    desk.restart()
    desk.take(decided)
    desk.flush()
    (row,) = desk.stored.values()
    assert (row.outcome, row.error, row.duration_ms) == (INTERRUPTED, NEVER_ENDED, 0)


def test_a_refusal_and_its_result_in_two_exports_are_one_denied_row(desk):
    decided, ended = apart(CODEX, decision="denied", source="User")
    desk.take(decided)
    desk.restart()
    desk.take(ended)
    desk.take(decided)
    (row,) = desk.stored.values()
    assert row.outcome == common_pb2.OUTCOME_DENIED


@pytest.mark.parametrize("is_decided", [True, False])
def test_an_id_that_a_model_server_gives_again_is_of_another_call(desk, is_decided):
    for reading in (apart(CODEX), later(apart(CODEX), 60_000)):
        decided, ended = reading
        if is_decided:
            desk.take(decided)
        desk.take(ended)
    assert len(desk.stored) == 2


def later(readings: tuple[Reading, Reading], by_ms: int) -> tuple[Reading, Reading]:
    for row in (*readings[0].intents, *readings[1].calls):
        row.created_at_ms += by_ms
        number = (int(row.id.replace("-", ""), 16) >> 80) + by_ms
        row.id = f"{number:012x}"[:8] + "-" + f"{number:012x}"[8:] + row.id[13:]
    return readings


STEPS = st.lists(st.sampled_from(("decided", "ended", "restart", "flush", "killed", "killed early")), max_size=9)


@pytest.mark.long
@settings(deadline=None)
@given(st.sampled_from([CLAUDE, CODEX]), STEPS)
def test_whatever_comes_in_whatever_order_is_one_row_that_never_changes(name, steps):
    with TemporaryDirectory() as folder, desk_in(folder) as desk:
        for step in steps:
            decided, ended = apart(name)
            match step:
                case "decided":
                    desk.take(decided)
                case "ended":
                    desk.take(ended)
                case "killed":
                    desk.take(ended, answered=False)
                    desk.take(ended)  # as the agent does, which got no answer
                case "killed early":
                    desk.take(decided, answered=False)
                    desk.take(decided)
                case "flush":
                    desk.flush()
                case "restart":
                    desk.restart()
        assert len(desk.stored) <= 1
        desk.flush()
        assert len(desk.stored) == bool(set(steps) - {"restart", "flush"})


@pytest.mark.long
def test_a_decision_that_was_answered_is_a_row_though_the_door_is_killed(house):
    house.start_audit()
    door = house.start_door()
    export = without(sample(CODEX), "codex.tool_result")
    body = ExportLogsServiceRequest(resource_logs=[export.logs]).SerializeToString()
    assert post(door.http, "/v1/logs", body)[0] == 200
    door.service.kill()
    house.start_door(INTAKE_OPEN_CALL_SECONDS="0.2")
    (row,) = wait_for(house.rows)
    assert (row["outcome"], row["error"]) == ("interrupted", NEVER_ENDED)
