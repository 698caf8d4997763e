"""The commands that operators type, as the documents show them, against a real service."""

import csv
import json
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from pyarrow import parquet

from demo.processes import REPOSITORY
from tests.audit_svc.samples import NOW_MS, cost_row, session_row
from tests.audit_svc.terminal.place import SESSION, Place, call

EXAMPLES = re.findall(r"^\$ audit-svc (.+)$", (REPOSITORY / "docs" / "questions.md").read_text("utf-8"), re.MULTILINE)
FOLLOWING = [example for example in EXAMPLES if example.startswith("tail")]


@pytest.mark.long
@pytest.mark.parametrize("example", [example for example in EXAMPLES if example not in FOLLOWING])
def test_each_example_of_the_documents_works_and_says_something(place: Place, example: str):
    # Of this service no caller has a name.
    command = example.replace("SESSION", SESSION).replace("--recorded-by gateway", "--recorded-by ''")
    ran = place.run(*shlex.split(command))
    assert ran.returncode == 0, ran.stderr
    written = re.search(r"--output (\S+)", example)
    assert (place.folder / written[1]).stat().st_size if written else ran.stdout.strip()
    assert "\x1b" not in ran.stdout, "no colour where no terminal is, and none that a row brings"


@pytest.mark.long
def test_sessions_are_found_by_what_their_calls_were(place: Place):
    source = ("--db", str(place.folder / "audit-backup.db"))
    for asked, found in (
        (("--tool", "webfetch"), 1),
        (("--tool", "bash", "--outcome", "failed"), 1),
        (("--tool", "glob"), 0),
        (("--outcome", "denied"), 0),
        (("--principal", "nobody"), 0),
        (("--agent", "nobody"), 0),
    ):
        for where in ((), source):
            ran = place.run("sessions", "--json", *asked, *where)
            assert (ran.returncode, len(ran.stdout.splitlines())) == (0, found), (asked, where, ran.stderr)


@pytest.mark.long
def test_acts_of_control_are_listed_and_stand_in_the_sessions_that_they_met(place: Place):
    assert [(act["kind"], act["principal"]) for act in place.json("controls")] == [
        ("stop", "ops"),
        ("rules_loaded", ""),
    ]
    assert [act["id"] for act in place.json("controls", "--kind", "rules_loaded")] == ["rules-1"]
    listed = place.run("controls", "--principal", "ops").stdout
    assert "engine=ollama" in listed
    assert "it loops" in listed
    entries = [line for line in place.run("show", SESSION).stdout.splitlines() if line.lstrip().startswith("+")]
    assert [("stop engine=" in line, "by ops" in line) for line in entries] == [
        (False, False),
        (False, False),
        (True, True),
        (False, False),
        (False, False),
    ]
    assert "rules.toml" not in "".join(entries), "it came into force before the session began"


@pytest.mark.long
@pytest.mark.parametrize("example", FOLLOWING)
def test_a_tail_shows_what_is_recorded_until_it_is_interrupted(place: Place, example: str):
    tail = subprocess.Popen(
        place.command(*shlex.split(example)), cwd=place.folder, env=place.env, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert tail.stdout is not None
    with tail:
        number = 1000
        try:
            line = ""
            reader = iter(tail.stdout.readline, "")
            while not line:
                number += 1
                place.record(tool_calls=[call(number, id=f"{example}-{number}", error="no room", created_at_ms=NOW_MS)])
                line = _next_line(tail, reader)
        finally:
            tail.send_signal(signal.SIGINT)
    assert "bash" in line
    assert tail.returncode == 130


def _next_line(process: subprocess.Popen[str], reader: Iterator[str]) -> str:
    import select

    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 0.2)
    assert process.poll() is None
    return next(reader) if ready else ""


def test_calls_are_filtered_and_printed_as_plain_values(place: Place):
    found = place.json("calls", "--tool", "bash", "--outcome", "timed_out", "--label", "user=ada")
    assert [row["id"] for row in found] == ["call-2"]
    assert found[0]["outcome"] == "timed_out"
    assert found[0]["exit_code"] is None
    assert found[0]["duration_ms"] == 12
    assert found[0]["position"] == 2
    assert found[0]["recorded_by"] is None


def test_a_session_is_told_in_order_with_its_cost(place: Place):
    text = place.run("show", SESSION).stdout
    lines = text.splitlines()
    assert lines[0] == f"session {SESSION}"
    assert "team=research user=ada" in text
    entries = [line for line in lines if line.lstrip().startswith("+") and "stop engine" not in line]
    assert "$0.001500" in entries[0]
    assert [
        word for line, word in zip(entries[1:], ["bash", "timed_out", "webfetch"], strict=False) if word in line
    ] == ["bash", "timed_out", "webfetch"]
    assert "\\x1b[31mno such host" in text


@pytest.mark.long
def test_a_session_of_many_pages_is_told_whole_with_each_turn_named_once(place: Place):
    place.record(
        sessions=[session_row(id="long", created_at_ms=NOW_MS - 50_000)],
        tool_calls=[call(n, id=f"long-{n:04}", session_id="long", args_summary=f"n{n:04}") for n in range(2500)],
    )
    text = place.run("show", "long").stdout
    assert text.count("turn turn-1") == 1
    assert re.findall(r"n(\d{4}) ", text) == [f"{n:04}" for n in range(2500)]
    found = place.json("show", "long")
    assert [entry["tool_call"]["id"] for entry in found[1:]] == [f"long-{n:04}" for n in range(2500)]


def test_a_session_that_ended_before_it_began_by_its_producers_clock_is_told(place: Place):
    place.record(sessions=[session_row(id="set-back", created_at_ms=NOW_MS, updated_at_ms=NOW_MS - 5_000)])
    ran = place.run("show", "set-back")
    assert (ran.returncode, "session set-back" in ran.stdout) == (0, True), ran.stderr


def test_sums_that_lack_the_last_turn_say_so_in_lists_too(place: Place):
    said = "the last turn is not counted yet"
    assert said in place.run("show", SESSION).stdout
    assert said in place.run("sessions", "--status", "running").stderr
    assert said not in place.run("sessions", "--status", "running", "--json").stderr
    place.record(sessions=[session_row(id="ended", status=common_pb2.SESSION_STATUS_IDLE, created_at_ms=NOW_MS)])
    assert said not in place.run("show", "ended").stdout
    assert said not in place.run("sessions", "--status", "idle").stderr


def test_a_call_that_did_not_run_or_nobody_saw_end_has_no_time(place: Place):
    outcomes = {"denied": 60_000, "interrupted": 0, "cancelled": 0, "failed": 0}
    place.record(
        sessions=[session_row(id="cut", created_at_ms=NOW_MS - 50_000)],
        tool_calls=[
            call(n, id=f"cut-{name}", session_id="cut", outcome=f"OUTCOME_{name.upper()}", duration_ms=took_ms)
            for n, (name, took_ms) in enumerate(outcomes.items())
        ],
    )
    told = place.run("show", "cut").stdout
    listed = place.run("calls", "--session", "cut").stdout
    for name in outcomes:
        took = "0 ms" if name == "failed" else "-"
        assert re.search(rf"{name}[^·\n]* · {took} · ", told), told
        assert re.search(rf" {name}\S*( exit \d)? +{took} ", listed), listed


def test_a_call_whose_agent_did_not_tell_how_long_it_took_has_no_time(place: Place):
    """A hook's end without a begin has the outcome, and 0 ms."""
    sources = {"by_hook": common_pb2.SOURCE_HOOK, "by_otlp": common_pb2.SOURCE_OTLP, "own": common_pb2.SOURCE_OWN_LOOP}
    place.record(
        sessions=[session_row(id="seen", created_at_ms=NOW_MS - 50_000)],
        tool_calls=[
            call(n, id=f"seen-{name}", session_id="seen", tool_name=name, source=source, duration_ms=0)
            for n, (name, source) in enumerate(sources.items())
        ],
    )
    told = place.run("show", "seen").stdout
    for name in sources:
        took = "0 ms" if name == "own" else "-"
        assert re.search(rf"{name}\b.* · {took} · ", told), told


def test_a_request_says_what_was_not_told_of_it(place: Place):
    told, cut = (
        cost_row(id=name, session_id="asked", usage_incomplete=is_cut, duration_ms=0, source=source, input_tokens=7)
        for name, is_cut, source in (("told", False, common_pb2.SOURCE_OWN_LOOP), ("cut", True, common_pb2.SOURCE_OTLP))
    )
    place.record(sessions=[session_row(id="asked", labels={})], model_requests=[told, cut])
    _, *lines = place.run("requests", "--session", "asked").stdout.splitlines()
    lines.sort(key=lambda line: " told" in line)
    assert re.search(r" ≥ 7/\d+ .* - +cut\b", lines[0]), lines
    assert re.search(r"  7/\d+ .* 0 ms +told\b", lines[1]), lines


def test_usage_is_grouped_by_labels_and_words(place: Place):
    rows = place.json("usage", "--by", "user,tool", "--since", "1h")
    assert place.json("usage", "--by", "user", "--by", "tool", "--since", "1h") == rows
    groups = {tuple(row["values"]): row for row in rows}
    assert groups["ada", "webfetch"]["tool_call_errors"] == 1
    assert groups["ada", ""]["usage"]["known_cost_micros"] == 1500


@pytest.mark.long
@pytest.mark.parametrize("source", [(), ("--db",)], ids=["service", "file"])
def test_usage_begins_with_what_cost_most_where_that_is_asked_for(place: Place, source: tuple[str, ...]):
    place.record(
        sessions=[session_row(id=name, labels={"priced": name}) for name in ("little", "much")],
        model_requests=[
            cost_row(id=f"of-{name}", session_id=name, cost_micros=micros)
            for name, micros in (("little", 1), ("much", 9))
        ],
    )
    where = [*source, *([str(place.database)] if source else [])]

    def first(*order: str) -> list[str]:
        words = ("usage", "--by", "priced", "--since", "1h", *order, *where)
        return [row["values"][0] for row in place.json(*words) if row["values"][0]]

    assert first("--order", "cost") == ["much", "little"]
    assert first() == first("--order", "value") == ["little", "much"]
    (most,) = place.json("usage", "--by", "session", "--since", "1h", "--limit", "1", "--order", "cost", *where)
    assert most["usage"]["known_cost_micros"] > 9, "the costs of all groups are compared, not those of a page"


@pytest.mark.long
def test_errors_tells_of_calls_requests_and_turns_that_failed_the_newest_first(place: Place):
    of: dict[str, Any] = {"session_id": "broken", "engine": "anthropic", "created_at_ms": NOW_MS - 3_000}
    failed = common_pb2.SESSION_STATUS_FAILED
    long_ago = NOW_MS - 30 * 86_400_000
    place.record(
        tool_calls=[call(70, **of, outcome=common_pb2.OUTCOME_FAILED, error="no such file")],
        model_requests=[cost_row(id="m-1", **{**of, "created_at_ms": NOW_MS - 2_000}, error="engine_busy, HTTP 529")],
        sessions=[
            session_row(
                id="broken", engine="anthropic", status=failed, created_at_ms=long_ago, updated_at_ms=NOW_MS - 1_000
            ),
            session_row(id="old", status=failed, created_at_ms=long_ago, updated_at_ms=long_ago),
        ],
    )
    asked = ("errors", "--since", "1h", "--session", "broken")
    found = place.json(*asked)
    assert [(row["kind"], row["id"]) for row in found] == [
        ("session", "broken"),
        ("model_request", "m-1"),
        ("tool_call", "call-70"),
    ]
    assert found[1]["error"] == "engine_busy, HTTP 529"
    shown = place.run(*asked).stdout
    assert [word for word in ("no such file", "HTTP 529", "turn") if word not in shown] == []
    assert [line.split("  ")[-1].strip() for line in shown.splitlines() if "  turn  " in line] == [
        "engine_busy, HTTP 529"
    ]
    everywhere = place.json("errors", "--since", "1h", "--engine", "anthropic")
    assert everywhere == found
    assert "old" not in [row["id"] for row in place.json("errors", "--since", "1h")]
    assert [row["kind"] for row in place.json(*asked, "--tool", "bash")] == ["tool_call"]
    assert len(place.json(*asked, "--limit", "2")) == 2
    assert place.json(*asked, "--db", str(place.database)) == found
    assert [row["id"] for row in place.json("requests", "--session", "broken", "--errors")] == ["m-1"]


def test_a_stop_that_ended_a_turn_is_its_reason_with_what_lifts_it_until_it_was_lifted(place: Place):
    session, stop = ("01900000-0000-7000-8000-0000000051" + end for end in ("0a", "0b"))
    failed = session_row(
        id=session,
        status=common_pb2.SESSION_STATUS_FAILED,
        created_at_ms=NOW_MS - 9_000,
        updated_at_ms=NOW_MS - 1_000,
    )
    control = {"stop_id": stop, "scope": "everything", "principal": "root"}
    acts = [
        audit_pb2.ControlRow(id="k-1", kind=audit_pb2.CONTROL_KIND_STOP, at_ms=NOW_MS - 2_000, **control),
        audit_pb2.ControlRow(id="k-2", kind=audit_pb2.CONTROL_KIND_RESUME, at_ms=NOW_MS, **control),
    ]
    lifts = f'everything is stopped: `gateway-svc resume {stop} --reason "…"` lifts it'
    for done, told in ((1, lifts), (2, "")):
        place.record(
            sessions=[failed],
            model_requests=[cost_row(id="m-s", session_id=session, created_at_ms=NOW_MS - 5_000)],
            controls=acts[:done],
        )
        listed = place.run("errors", "--session", session)
        assert listed.stdout.rstrip().endswith(f"everything was stopped (stop {stop})")
        assert listed.stderr.strip() == told
        shown = place.run("show", session)
        assert "stop everything · by root" in shown.stdout
        assert shown.stderr.strip() == told


@pytest.mark.parametrize(
    "words",
    [
        ("calls", "--session", ""),
        ("calls", "--session="),
        ("calls", "--contains", ""),
        ("usage", "--tool", ""),
        ("usage", "--by", ""),
        ("export", "--kind", "calls", "--session", "", "--output", "all.jsonl"),
        ("sessions", "--since", ""),
        ("tail", "--session", ""),
    ],
    ids=" ".join,
)
def test_what_is_asked_for_by_nothing_is_not_everything(place: Place, words: tuple[str, ...]):
    """As by a shell's variable that is not set."""
    ran = place.run(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "is empty" in ran.stderr
    assert not (place.folder / "all.jsonl").exists()


@pytest.mark.long
def test_a_list_that_ends_at_its_limit_says_so(place: Place):
    for command in ("calls", "requests", "sessions", "errors", "controls", "usage"):
        found = len(place.json(command, "--limit", "10000"))
        assert "there are more" not in place.run(command, "--limit", str(found)).stderr, command
        assert found > 1 or command not in ("calls", "errors", "controls", "usage"), command
        for form in ((), ("--json",)) if found > 1 else ():  # other tests record more, where they came before
            told = place.run(command, "--limit", "1", *form).stderr
            assert "there are more: --limit shows them" in told, command


@pytest.mark.parametrize("where", ["service", "file"])
def test_rows_of_each_kind_are_exported(place: Place, where):
    source = [] if where == "service" else ["--db", str(place.database)]
    ran = place.run("export", "--kind", "requests", "--session", SESSION, *source)
    assert [json.loads(line)["id"] for line in ran.stdout.splitlines()] == ["cost-1"], ran.stderr
    ran = place.run("export", "--kind", "sessions", "--session", SESSION, "--format", "csv", *source)
    [row] = csv.DictReader(ran.stdout.splitlines())
    assert (row["id"], row["usage_requests"]) == (SESSION, "2")
    assert json.loads(row["labels"]) == {"team": "research", "user": "ada"}
    ran = place.run("export", "--kind", "controls", "--principal", "ops", *source)
    assert [json.loads(line)["kind"] for line in ran.stdout.splitlines()] == ["stop"], ran.stderr
    ran = place.run("export", "--kind", "requests", "--tool", "bash", *source)
    assert ran.returncode == 2
    assert "--tool" in ran.stderr


@pytest.mark.long
def test_a_csv_file_holds_no_formula_and_a_parquet_file_types(place: Place):
    place.record(tool_calls=[call(50, args_summary="=cmd|' /C calc'!A0", created_at_ms=NOW_MS - 5_000)])
    for form in ("csv", "parquet"):
        ran = place.run("export", "--format", form, "--output", f"all.{form}", "--contains", "cmd|")
        assert ran.returncode == 0, ran.stderr
    with (place.folder / "all.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["args_summary"] == "'=cmd|' /C calc'!A0"
    [record] = parquet.read_table(place.folder / "all.parquet").to_pylist()
    assert record["args_summary"] == "=cmd|' /C calc'!A0"
    assert record["created_at_ms"] == NOW_MS - 5_000
    assert record["http_status"] is None
    assert record["position"] > 0
    assert record["recorded_by"] is None


@pytest.mark.long
def test_nothing_in_a_row_acts_on_a_terminal_or_breaks_a_line_of_json(place: Place):
    odd = "\x1b]0;x\x07\x9b31m\u202e\u061c\u2028\x85"
    name = "\u202e\u061c\u2028x"  # a control character is no part of a name
    place.record(tool_calls=[call(60, id="odd", args_summary=odd, tool_name=name, created_at_ms=NOW_MS - 4_000)])
    for args in (["calls"], ["calls", "--json"], ["show", SESSION], ["usage"], ["usage", "--json"], ["export"]):
        said = place.run(*args).stdout
        assert said
        assert not set(odd) - set("]0;x31m") & set(said), args
    [row] = [row for row in place.json("calls") if row["id"] == "odd"]
    assert row["args_summary"] == odd


@pytest.mark.long
def test_a_terminal_of_another_encoding_gets_what_it_can_show(place: Place):
    place.record(tool_calls=[call(61, id="euro", args_summary="\u20ac \U0001f600", created_at_ms=NOW_MS - 3_000)])
    env = {**place.env, "PYTHONIOENCODING": "latin-1"}
    for args in (["calls"], ["calls", "--json"], ["usage"], ["show", SESSION], ["export"]):
        ran = subprocess.run(place.command(*args), cwd=place.folder, env=env, capture_output=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        if "--json" in args:
            rows = [json.loads(line) for line in ran.stdout.decode("ascii").splitlines()]
            assert "\u20ac \U0001f600" in {row["args_summary"] for row in rows}


@pytest.mark.long
def test_a_service_erases_by_the_end_of_an_id(place: Place):
    where = ("--dry-run", "--reason", "asked to", "--target", place.service.address)
    ran = place.run("erase", "--session", SESSION[-8:], *where)
    assert (ran.returncode, ran.stderr) == (0, f"{SESSION[-8:]} is {SESSION}\n")
    assert re.match(r"would erase the texts of \d+ tool calls, ", ran.stdout)
    ran = place.run("erase", "--session", "cafecafe", *where)
    assert (ran.returncode, ran.stderr) == (1, "the ledger has no session with this id\n")
