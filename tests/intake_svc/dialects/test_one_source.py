"""A session that an agent tells of by two signals has one row of each call and request."""

from intake_svc.dialects import Reading, read_logs, read_spans
from intake_svc.dialects.one_source import OneSource
from tests.intake_svc.dialects.exports import sample

BOTH = "claude-code-2.1.197-logs-and-traces-details"


def readings() -> tuple[Reading, Reading]:
    export = sample(BOTH)
    return read_logs(export.logs), read_spans(export.spans)


def take(source: OneSource, reading: Reading, signal: str, principal: str = "") -> tuple[Reading, int]:
    """What goes on the record, as the door takes it."""
    chosen, left_out = source.choose(reading, signal, principal)
    source.remember(reading, chosen, signal, principal)
    return chosen, left_out


def test_events_are_preferred_and_the_spans_left_out():
    source, (logs, spans) = OneSource(), readings()

    assert take(source, logs, "logs") == (logs, 0)
    chosen, left_out = take(source, spans, "traces")
    assert (chosen.calls, chosen.costs, left_out) == ((), (), 3)
    assert chosen.ignored == spans.ignored + 3
    assert take(source, logs, "logs") == (logs, 0)


def test_an_event_that_is_no_row_is_enough_to_know_the_signal():
    """The first event of a session comes long before the first span."""
    source, export = OneSource(), sample(BOTH)
    del export.logs.scope_logs[0].log_records[1:]

    assert take(source, read_logs(export.logs), "logs")[0].calls == ()
    assert take(source, readings()[1], "traces")[1] == 3


def test_spans_alone_go_on_the_record():
    source, (_, spans) = OneSource(), readings()

    assert take(source, spans, "traces") == (spans, 0)
    assert take(source, spans, "traces") == (spans, 0)


def test_a_call_that_its_span_told_of_first_is_not_told_again():
    """Also when the export of the events is sent once more."""
    source, (logs, spans) = OneSource(), readings()
    take(source, spans, "traces")

    for _ in range(2):
        chosen, left_out = take(source, logs, "logs")
        assert (chosen.calls, chosen.costs, left_out) == ((), logs.costs, 1)


def test_what_was_not_made_safe_hides_nothing():
    """Rows that the spool did not take are told by whichever signal comes again first."""
    source, (logs, spans) = OneSource(), readings()
    source.choose(logs, "logs")
    assert take(source, spans, "traces") == (spans, 0)

    other = OneSource()
    other.choose(spans, "traces")
    assert take(other, logs, "logs") == (logs, 0)


def test_a_session_that_somebody_else_names_alike_is_another():
    source, (logs, spans) = OneSource(), readings()
    take(source, logs, "logs", "mallory")

    assert take(source, spans, "traces", "alice") == (spans, 0)


def test_the_signal_that_is_preferred_is_a_setting():
    source, (logs, spans) = OneSource({"claude": "traces"}), readings()
    take(source, spans, "traces")

    assert take(source, logs, "logs")[1] == 3
    assert take(OneSource({}), logs, "logs") == (logs, 0)


def test_other_agents_are_not_looked_at():
    reading = read_spans(sample("opencode-1.18.33").spans)

    assert take(OneSource(), reading, "traces") == (reading, 0)


def test_what_is_remembered_is_bounded():
    logs, spans = readings()
    sessions, calls = OneSource(most_sessions=1), OneSource(most_calls=0)
    take(sessions, logs, "logs")
    take(sessions, read_logs(sample("claude-code-2.1.197-logs").logs), "logs")
    take(calls, spans, "traces")

    assert take(sessions, spans, "traces") == (spans, 0)
    assert take(calls, logs, "logs") == (logs, 0)
