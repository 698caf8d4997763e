"""A session that an agent tells of by two signals has one row of each call and request."""

from intake_svc.dialects import Reading, read_logs, read_spans
from intake_svc.dialects.one_source import OneSource
from tests.intake_svc.dialects.exports import sample

BOTH = "claude-code-2.1.197-logs-and-traces-details"


def readings() -> tuple[Reading, Reading]:
    export = sample(BOTH)
    return read_logs(export.logs), read_spans(export.spans)


def test_events_are_preferred_and_the_spans_left_out():
    source, (logs, spans) = OneSource(), readings()

    assert source.take(logs, "logs") == (logs, 0)
    taken, left_out = source.take(spans, "spans")
    assert (taken.calls, taken.costs, left_out) == ((), (), 3)
    assert taken.ignored == spans.ignored + 3
    assert source.take(logs, "logs") == (logs, 0)


def test_an_event_that_is_no_row_is_enough_to_know_the_signal():
    """The first event of a session comes long before the first span."""
    source, export = OneSource(), sample(BOTH)
    del export.logs.scope_logs[0].log_records[1:]

    assert source.take(read_logs(export.logs), "logs")[0].calls == ()
    assert source.take(readings()[1], "spans")[1] == 3


def test_spans_alone_go_on_the_record():
    source, (_, spans) = OneSource(), readings()

    assert source.take(spans, "spans") == (spans, 0)
    assert source.take(spans, "spans") == (spans, 0)


def test_a_call_that_its_span_told_of_first_is_not_told_again():
    """Also when the export of the events is sent once more."""
    source, (logs, spans) = OneSource(), readings()
    source.take(spans, "spans")

    for _ in range(2):
        taken, left_out = source.take(logs, "logs")
        assert (taken.calls, taken.costs, left_out) == ((), logs.costs, 1)


def test_the_signal_that_is_preferred_is_a_setting():
    source, (logs, spans) = OneSource({"claude": "spans"}), readings()
    source.take(spans, "spans")

    assert source.take(logs, "logs")[1] == 3
    assert OneSource({}).take(logs, "logs") == (logs, 0)


def test_other_agents_are_not_looked_at():
    reading = read_spans(sample("opencode-1.18.33").spans)

    assert OneSource().take(reading, "spans") == (reading, 0)


def test_what_is_remembered_is_bounded():
    source, (logs, spans) = OneSource(most_sessions=1), readings()
    source.take(logs, "logs")
    source.take(read_logs(sample("claude-code-2.1.197-logs").logs), "logs")

    assert source.take(spans, "spans") == (spans, 0)
