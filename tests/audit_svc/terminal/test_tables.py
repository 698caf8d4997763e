"""Every table of the ledger's commands, on a terminal of 80 columns and 24 lines."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2

from audit_svc.seal.verify import Report
from audit_svc.terminal import producers, rows
from audit_svc.terminal.running import size
from audit_svc.terminal.seal.report import show
from audit_svc.terminal.timeline import Timeline
from audit_svc.terminal.usage_table import usage_table
from recording.calls import Decision
from recording.rows import decide
from service_kit.producing.stop import decision as decision_of_stop
from service_kit.terminal.printing import Printer, Table, progress
from tests.audit_svc.samples import audit_row, cost_row, session_row
from tests.support.command_line import on_terminal

SESSION = "01900000-0000-7000-8000-00000000cafe"
DAY_MS = 86_400_000
AT_MS = time.time_ns() // 1_000_000 - 3 * DAY_MS - DAY_MS // 2
RECEIPT = questions_pb2.Receipt(position=7, recorded_by="gateway-of-the-north")
CALL = questions_pb2.ToolCallRecord(
    tool_call=audit_row(
        session_id=SESSION,
        tool_name="bash",
        model="a-model-with-a-long-name:235b",
        args_summary="x" * 500,
        error="it took longer than 120 s and was ended " * 5,
        outcome=common_pb2.OUTCOME_TIMED_OUT,
        created_at_ms=AT_MS,
    ),
    receipt=RECEIPT,
)
REQUEST = questions_pb2.ModelRequestRecord(
    model_request=cost_row(
        session_id=SESSION,
        model="a-model-with-a-long-name:235b",
        error="engine_rejected, HTTP 400",
        input_tokens=10**9,
        cost_micros=1_234_500_000,
        created_at_ms=AT_MS,
    ),
    receipt=RECEIPT,
)
USAGE = common_pb2.Usage(requests=12_345, input_tokens=10**9, output_tokens=10**8, known_cost_micros=10**10)
RECORD = questions_pb2.SessionRecord(
    session=session_row(
        id=SESSION,
        labels={"team": "research", "repository": "r" * 90},
        usage=USAGE,
        created_at_ms=AT_MS,
        updated_at_ms=AT_MS,
    ),
    receipt=RECEIPT,
)
CONTROL = questions_pb2.ControlRecord(
    control=audit_pb2.ControlRow(
        id="01900000-0000-7000-8000-0000000000ac",
        kind=audit_pb2.CONTROL_KIND_STOP,
        principal="ops",
        scope="everything",
        reason="they loop " * 20,
        stop_id=SESSION,
        policy_digest="d" * 64,
        at_ms=AT_MS,
    ),
    receipt=RECEIPT,
)
QUERY = administration_pb2.QueryRow(
    created_at_ms=AT_MS, caller="ada", method="ListToolCalls", times=3, rows=100, filters="tool_name " * 30
)
PRODUCER = producers.Producer(
    SESSION, "gateway-of-the-north", 9, "2026-11-29T08:00:00Z", "2026-11-29T08:00:00Z", 0, 2, "TOO_OLD"
)


def usage(*values: str) -> questions_pb2.UsageGroup:
    return questions_pb2.UsageGroup(
        values=values, tool_calls=1_234_567, duration_p50_ms=12, duration_p95_ms=1007.5, result_bytes=10**9, usage=USAGE
    )


TABLES: dict[str, tuple[Callable[[], Table], list[str]]] = {
    "calls": (partial(rows.calls_table, [CALL]), ["3 d ago", SESSION[-8:], "bash", "timed_out"]),
    "requests": (partial(rows.requests_table, [REQUEST]), ["3 d ago", SESSION[-8:], "$1,234.500000"]),
    "errors": (
        partial(rows.errors_table, [rows.failure_of(each, lambda _: "it broke") for each in (CALL, REQUEST, RECORD)]),
        ["3 d ago", SESSION[-8:], "bash", "timed_out", "model request", "turn"],
    ),
    "sessions": (partial(rows.sessions_table, [RECORD]), ["3 d ago", SESSION[-8:], "$10,000.000000"]),
    "controls": (partial(rows.controls_table, [CONTROL]), ["3 d ago", "stop", "ops", "everything", "they loop"]),
    "queries": (partial(rows.queries_table, [QUERY]), ["3 d ago", "ada", "ListToolCalls", "100"]),
    "usage by day": (
        partial(usage_table, ["day", "tool"], [usage("2026-11-29", "bash"), usage("2026-11-28", "bash")]),
        ["2026-11-29", "1,234,567", "$10,000.000000", "total", "2,469,134", "$20,000.000000"],
    ),
    "usage by session": (partial(usage_table, ["session"], [usage(SESSION)]), [SESSION[-8:], "$10,000.000000"]),
    "usage by four groups": (
        partial(usage_table, ["session", "model", "tool", "repository"], [usage(SESSION, "m" * 40, "bash", "r" * 70)]),
        ["m" * 40, "bash", "1,234,567", "$10,000.000000", SESSION, "tokens out"],
    ),
    "producers": (partial(producers.table_of, [PRODUCER]), [SESSION, "9", "2 (TOO_OLD)"]),
    "producers with long names": (
        partial(producers.table_of, [replace(PRODUCER, id=f"gateway-of-the-north/{SESSION}")]),
        [f"gateway-of-the-north/{SESSION}", "2 (TOO_OLD)", "2026-11-29T08:00:00Z"],
    ),
}

BLOCKS = ("usage by four groups", "producers with long names")
"""No line has room for what must stay of them."""


@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_80_columns_and_cuts_no_id_no_money_no_day_and_no_header(name):
    build, wanted = TABLES[name]
    shown = on_terminal(lambda: Printer().print(build()))
    lines = re.sub(r"\x1b\[\d*m", "", shown).splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert [part for part in wanted if not any(part in line for line in lines)] == []
    header = lines[0].split("  ")[: 1 if name in BLOCKS else None]
    everything = next(str(line) for line in build().lines())
    assert [name for name in header if name.strip() not in everything] == []
    assert "…" not in lines[0]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_all_columns_when_it_is_to_be_wide(name):
    build, _ = TABLES[name]
    assert "no room" not in on_terminal(lambda: Printer().print(build(), wide=True))


@pytest.mark.parametrize(
    ("name", "row"), [("calls", CALL.tool_call), ("requests", REQUEST.model_request), ("controls", CONTROL.control)]
)
def test_a_wide_table_has_the_whole_ids_of_its_rows(name, row):
    shown = re.sub(r"\x1b\[\d*m", "", on_terminal(lambda: Printer().print(TABLES[name][0](), wide=True)))
    assert row.id in shown.splitlines()[1].split()


def test_a_wide_timeline_has_the_whole_ids_of_its_rows_and_cuts_nothing():
    entries = [
        questions_pb2.Entry(at_ms=AT_MS, tool_call=CALL),
        questions_pb2.Entry(at_ms=AT_MS, model_request=REQUEST),
    ]

    def act() -> None:
        for line in Timeline(RECORD, [CONTROL], with_ids=True).lines(entries):
            Printer().print(line, wide=True, cut=True)

    lines = [line for line in re.sub(r"\x1b\[\d*m", "", on_terminal(act)).splitlines() if line[:1] == " "]
    ids = [CONTROL.control.id, CALL.tool_call.id, REQUEST.model_request.id]
    assert [line.rpartition(" · ")[2] for line in lines] == ids
    assert "x" * 500 in lines[1]


def test_why_something_was_done_or_failed_is_shown_whole_and_only_arguments_are_cut():
    entries = [
        questions_pb2.Entry(at_ms=AT_MS, tool_call=CALL),
        questions_pb2.Entry(at_ms=AT_MS, model_request=REQUEST),
    ]
    wanted = [CALL.tool_call.error, REQUEST.model_request.error, f"“{CONTROL.control.reason}”"]

    def act() -> None:
        for line in Timeline(RECORD, [CONTROL]).lines(entries):
            Printer().print(line, cut=True)

    shown = re.sub(r"\x1b\[\d*m", "", on_terminal(act))
    assert max(map(len, shown.splitlines())) <= 80
    assert [text for text in wanted if " ".join(text.split()).strip(" ”") not in " ".join(shown.split())] == []
    assert shown.count("…") == 1
    for name, reason in (("errors", CALL.tool_call.error), ("controls", CONTROL.control.reason)):
        build, _ = TABLES[name]
        table = re.sub(r"\x1b\[\d*m", "", on_terminal(partial(lambda build: Printer().print(build()), build)))
        last = table.splitlines()[0].split()[-1]
        column = table.splitlines()[0].index(last)
        assert reason.strip() in " ".join(line[column:].strip() for line in table.splitlines())


def test_what_a_timeline_says_of_its_session_is_broken_between_words():
    """The heading, and why the last turn has no end: neither loses its end on 80 columns."""
    running = questions_pb2.SessionRecord()
    running.CopyFrom(RECORD)
    running.session.status = common_pb2.SESSION_STATUS_RUNNING
    said = [str(line).strip() for part in ("heading", "end") for line in getattr(Timeline(running), part)()]

    def act() -> None:
        timeline = Timeline(running)
        for line in (*timeline.heading(), *timeline.end()):
            Printer().print(line, cut=True)

    shown = re.sub(r"\x1b\[\d*m", "", on_terminal(act))
    assert " ".join(shown.split()) == " ".join(said)
    assert said[-1].endswith("has not started again")
    assert [line for line in shown.splitlines() if len(line) > 80 and " " in line] == []


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_piped_has_all_columns_and_times_in_rfc_3339(capsys, name):
    build, _ = TABLES[name]
    Printer().print(build())
    piped = capsys.readouterr()
    assert piped.err == ""
    assert "…" not in piped.out
    assert " ago" not in piped.out
    if name in ("calls", "sessions"):
        assert re.search(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ ", piped.out, re.MULTILINE)


def test_a_row_that_no_line_has_room_for_is_a_block_of_lines():
    """Each column is there, and a value that is wider than the screen goes on below itself."""
    shown = re.sub(r"\x1b\[\d*m", "", on_terminal(lambda: Printer().print(TABLES["usage by four groups"][0]())))
    assert "no room" not in shown
    names = [line[:16].strip() for line in shown.splitlines()]
    assert names[:6] == ["session", "model", "tool", "repository", "", "tool calls"]
    assert "".join(line[16:] for line in shown.splitlines()[3:5]) == "r" * 70


def test_a_sentence_that_is_wider_than_the_terminal_is_broken_between_words():
    text = "  " + "what went wrong and what to do " * 5 + "/a/path/of/one/piece" * 5
    shown = on_terminal(lambda: Printer(stderr=True).print(text))
    *lines, path = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert path == "  " + "/a/path/of/one/piece" * 5
    assert " ".join(shown.split()) == " ".join(text.split())


def test_a_line_takes_the_place_of_how_far_something_is():
    def act() -> None:
        with progress(Printer(stderr=True), lambda done, total: f"checking {100 * done // total} %") as tell:
            tell(0, 10)
            Printer().print("ok     schema")
            tell(10, 10)

    shown = on_terminal(act)
    assert shown == "checking 0 %\r\x1b[Kok     schema\nchecking 100 %\r\x1b[K"


def test_a_percentile_that_may_lie_above_the_longest_call_is_told_as_about_that():
    shown = str([*usage_table(["tool"], [usage("bash")]).lines()][1])
    assert " 12 ms " in shown
    assert " ~1.0 s " in shown


STOP = control_pb2.Stop(id="0190", scope=control_pb2.StopScope(tool="bash"), reason="a drill", principal="ada")
BY_RULE = Decision(common_pb2.DECISION_SOURCE_RULE, common_pb2.VERDICT_DENIED, rule="no-network", reason="a drill")


def call_with(decision: Decision) -> audit_pb2.AuditRow:
    row = audit_row()
    decide(row, decision)
    return row


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (BY_RULE, "denied by the rule no-network · “a drill”"),
        (decision_of_stop(STOP), "stopped by ada · “a drill”"),
        (replace(decision_of_stop(STOP), decided_by=""), "stopped (stop 0190) · “a drill”"),
    ],
)
def test_a_rule_of_a_file_is_told_from_a_stop(decision: Decision, said: str):
    assert rows.decision_of(call_with(decision)) == said


def test_what_a_stop_refused_is_among_errors_with_who_stopped_it_and_why():
    call = questions_pb2.ToolCallRecord(tool_call=call_with(decision_of_stop(STOP)))
    assert rows.failure_of(call, lambda _: "").reason == "stopped by ada: a drill"


def test_a_line_of_what_verify_found_goes_on_below_itself():
    report = Report(problems=["the row of a tool call at position 7 was changed " * 3])
    shown = on_terminal(lambda: show(report, "audit.db.seal", own_key=True, as_json=False))
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert {line[:7] for line in lines} == {"wrong  ", "note   ", " " * 7}


@pytest.mark.parametrize(("count", "told"), [(0, "0 bytes"), (1, "1 byte"), (2, "2 bytes"), (1023, "1,023 bytes")])
def test_a_number_of_bytes_is_in_the_singular_or_the_plural(count: int, told: str):
    assert size(count) == told
