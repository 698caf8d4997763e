"""What an agent numbered and never sent is told as a hole of its session, until it comes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from intake_svc.dialects import SequenceNumber
from intake_svc.numbers import Continued, numbers_of
from tests.intake_svc.conftest import wait_for
from tests.intake_svc.exports import post_json
from tests.support.forked import run_command

STREAM = "claude event.sequence"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-3, 30))))
def test_the_ranges_hold_each_number_that_came_and_no_other(numbers):
    found = list(numbers_of(SequenceNumber(session, STREAM, number) for session, number in numbers))
    held = [(one.session_id, number) for one in found for number in range(one.first, one.last + 1)]
    assert held == sorted({(session, number) for session, number in numbers if number >= 0})
    assert all(one.session_id != after.session_id or one.last + 1 < after.first for one, after in pairwise(found))


def events(session: str, *numbers: int, user: str = "") -> dict[str, object]:
    """Log records of Claude Code with these numbers."""
    records = [
        {
            "timeUnixNano": str(1_790_000_000_000_000_000 + number),
            "body": {"stringValue": "claude_code.user_prompt"},
            "attributes": [
                {"key": "event.name", "value": {"stringValue": "user_prompt"}},
                {"key": "session.id", "value": {"stringValue": session}},
                {"key": "event.sequence", "value": {"intValue": str(number)}},
                *([{"key": "user.id", "value": {"stringValue": user}}] if user else []),
            ],
        }
        for number in numbers
    ]
    scope = {"name": "com.anthropic.claude_code.events"}
    return {"resourceLogs": [{"scopeLogs": [{"scope": scope, "logRecords": records}]}]}


def test_a_number_that_never_came_is_told_by_check_until_it_comes(shared):
    house, door = shared
    session = "holes"

    def send(*numbers: int) -> None:
        assert post_json(door.http, "/v1/logs", events(session, *numbers))[0] == 200

    def holes() -> list[tuple[int, int]]:
        rows = house.rows("producer_gaps")
        mine = [row for row in rows if row["producer_id"] == f"session/{session}/{STREAM}"]
        return [(row["first_sequence"], row["last_sequence"]) for row in mine]

    def highest() -> int:
        rows = house.rows("producers")
        return max((row["highest_sequence"] for row in rows if row["id"] == f"session/{session}/{STREAM}"), default=-1)

    send(0, 1, 4)
    send(9)
    wait_for(lambda: highest() == 9)
    assert holes() == [(2, 3), (5, 8)]
    told = run_command("audit_svc", {}, "check", "--db", str(house.db)).stdout
    assert f"session {session}, {STREAM}: numbers 5 to 8 never came (4)" in " ".join(told.split())
    send(3, 2, 9)
    send(5, 6, 7, 8)
    wait_for(lambda: not holes())


def test_a_session_that_goes_on_with_the_numbers_of_the_one_before_has_no_hole(shared):
    """Claude Code counts in its process, and goes on after /clear (https://code.claude.com/docs/en/monitoring-usage)."""
    house, door = shared

    def send(session: str, *numbers: int, user: str = "somebody") -> None:
        assert post_json(door.http, "/v1/logs", events(session, *numbers, user=user))[0] == 200

    def holes(session: str) -> list[tuple[int, int]]:
        rows = house.rows("producer_gaps")
        mine = [row for row in rows if row["producer_id"] == f"session/{session}/{STREAM}"]
        return [(row["first_sequence"], row["last_sequence"]) for row in mine]

    def wait_for_number(session: str, number: int) -> None:
        producer = f"session/{session}/{STREAM}"
        wait_for(lambda: (producer, number) in [(r["id"], r["highest_sequence"]) for r in house.rows("producers")])

    send("clear-1", 0, 1, 2, 3)
    send("clear-2", 4, 5, 7)
    send("clear-2", 4, 5, 7)  # sent again
    send("clear-of-another", 4, 5, user="another")
    send("clear-behind-a-loss", 9)
    for session, number in {"clear-2": 7, "clear-of-another": 5, "clear-behind-a-loss": 9}.items():
        wait_for_number(session, number)
    assert holes("clear-2") == [(6, 6)]
    assert holes("clear-of-another") == [(1, 3)]
    assert holes("clear-behind-a-loss") == [(1, 8)]


def told(continued: Continued, *numbers: tuple[str, int]) -> list[tuple[str, int, int]]:
    sequence = [SequenceNumber(session, STREAM, number, "somebody") for session, number in numbers]
    ranges = continued.ranges(sequence, "")
    continued.remember(sequence, "")
    return [(one.session_id, one.first, one.last) for one in ranges]


def test_what_comes_before_may_be_in_the_same_export():
    assert told(Continued(), ("b", 2), ("b", 3), ("a", 0), ("a", 1)) == [("a", 0, 1), ("b", 1, 3)]


def test_of_more_sessions_than_are_remembered_the_one_idle_for_longest_is_forgotten():
    continued = Continued(most_sessions=2)
    told(continued, ("a", 10))
    told(continued, ("b", 20))
    told(continued, ("c", 30))
    assert told(continued, ("d", 11)) == [("d", 11, 11)]
    assert told(continued, ("e", 31)) == [("e", 1, 31)]


def test_what_was_not_made_safe_ends_no_session():
    continued = Continued()
    continued.ranges([SequenceNumber("a", STREAM, 10, "somebody")], "")
    assert told(continued, ("b", 11)) == [("b", 11, 11)]
