"""What people see of a gateway on a terminal: others' names as they are, and nothing that the terminal obeys."""

import json
import re
from collections.abc import Iterator

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.__main__ import program
from gateway_svc.stopping.commands import stops_table
from gateway_svc.terminal import turns
from gateway_svc.terminal.calling import print_json
from gateway_svc.terminal.sessions import engines_table, sessions_table
from gateway_svc.terminal.turn_printer import TurnPrinter
from service_kit.terminal import failures
from service_kit.terminal.command import Exit
from service_kit.terminal.printing import Printer
from tests.support.command_line import invoke, on_terminal

HARM = "\x1b[31m\u202e\u200b\x9b2J"


def events() -> Iterator[pb.TurnEvent]:
    yield pb.TurnEvent(turn_accepted=pb.TurnAccepted(session_id=HARM, turn_id=HARM))
    yield pb.TurnEvent(turn_started=pb.TurnStarted(engine=HARM, model=HARM))
    yield pb.TurnEvent(text_delta=pb.TextDelta(text="one \x1b"))
    yield pb.TurnEvent(text_delta=pb.TextDelta(text="[31mtwo \u202e世界\r\n"))
    yield pb.TurnEvent(
        tool_call_started=pb.ToolCallStarted(
            tool_call_id=HARM, tool_name=HARM, args_summary=HARM, pending=pb.PendingAnswer()
        )
    )
    yield pb.TurnEvent(tool_call_finished=pb.ToolCallFinished(tool_call_id=HARM, tool_name=HARM, error=HARM))
    yield pb.TurnEvent(rate_limit_changed=pb.RateLimitChanged(status=pb.RATE_LIMIT_STATUS_REACHED, window=HARM))
    yield pb.TurnEvent(warning=pb.Warning(message=HARM))
    yield pb.TurnEvent(engine_changed=pb.EngineChanged(engine=HARM, model=HARM, reason=HARM))


def test_a_turn_shows_nothing_that_a_terminal_obeys(capsys):
    printer = TurnPrinter()
    for event in events():
        printer.show(event)
    captured = capsys.readouterr()
    assert captured.out == "one two 世界\n\n"
    assert captured.err.count("\\x1b[31m\\u202e\\u200b\\x9b2J") == 13
    assert all(character.isprintable() or character == "\n" for character in captured.err)


@pytest.mark.parametrize("event", list(events()), ids=lambda event: event.WhichOneof("event"))
def test_json_is_a_line_that_says_the_same(capsys, event):
    print_json(event)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line)


@pytest.mark.parametrize("option", ["--label=team=a", "--fallback=ollama", "--shadow=ollama:m1"])
def test_settings_of_a_session_that_there_is_are_refused(option):
    """Rather than left out: the turn would run without its fallback."""
    result = invoke(program, ["run", "hi", "--session", "s1", option])
    assert result.exit_code == 2
    assert "--session" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *(
            (["run", "hi", f"--{name}", ""], f"argument --{name}: is empty: leave it out, or give a value")
            for name in ("session", "title", "engine", "model", "fallback", "shadow")
        ),
        (["chat", "--session="], "argument --session: is empty: leave it out, or give a value"),
        (["run", ""], "PROMPT: is empty: say what the agent should do"),
        (["run", " "], "PROMPT: is empty: say what the agent should do"),
        (["stop", "--reason", "x", "--label", "foo"], "--label: 'foo' is not key=value"),
        (
            ["stop", "--reason", "x"],
            "give one of --everything, --principal, --agent, --engine, --tool and --label KEY=VALUE",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_refused_before_anybody_is_asked(words, said):
    """An empty value is one of a shell's variable that is not set."""
    ran = invoke(program, [*words, "--target", "127.0.0.1:1"])
    assert ran.exit_code == 2
    assert said in ran.stderr.splitlines()[-1]


SESSION = pb.Session(
    id="01900000-0000-7000-8000-00000000cafe",
    settings=pb.SessionSettings(engine="ollama", model="a-model-with-a-long-name:235b", labels={"team": "t" * 90}),
    status=common_pb2.SESSION_STATUS_RUNNING,
    usage=common_pb2.Usage(requests=3, input_tokens=10**9, output_tokens=10**8, known_cost_micros=10**10),
)
ENGINE = pb.Engine(name="ollama-of-the-north", default_model="m" * 40, is_default=True, jail="bubblewrap, Landlock")

STOP = control_pb2.Stop(
    id="01900000-0000-7000-8000-0000000051ab",
    scope=control_pb2.StopScope(engine=ENGINE.name),
    reason="they loop " * 20,
    principal="ada",
)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        (sessions_table([SESSION]), [SESSION.id[-8:], "running", "$10,000.000000"]),
        (engines_table([ENGINE]), [ENGINE.name, ENGINE.default_model, "yes"]),
        (stops_table([STOP]), [STOP.id[-8:], "engine=ollama-of-the-north", "they loop"]),
    ],
)
def test_a_table_fits_80_columns_and_cuts_no_id_and_no_money(table, wanted):
    lines = re.sub(r"\x1b\[\d*m", "", on_terminal(lambda: Printer().print(table))).splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert [part for part in wanted if part not in lines[1]] == []


def test_tokens_of_a_session_are_written_as_the_ledger_writes_them():
    session = pb.Session(usage=common_pb2.Usage(input_tokens=3_427, output_tokens=1_000_102))
    assert "3,427/1,000,102" in [*map(str, sessions_table([session]).lines())][1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "name what is to change: --engine, --max-cost and so on, or --without"),
        (["--without", "budget"], "--without: 'budget' is not one of engine, model, system-prompt, max-cost, "),
    ],
)
def test_a_change_of_nothing_is_refused_in_options(more, said):
    ran = invoke(program, ["change", "0" * 36, "--target", "127.0.0.1:1", *more])
    assert ran.exit_code == 2
    assert said in ran.stderr.splitlines()[-1]


def test_chat_names_the_program_that_was_typed(monkeypatch, capsys):
    """What was cancelled elsewhere is a note there, where run ends with it."""
    monkeypatch.setitem(failures.own_names, "`audit-svc show", "`onrecord show")
    ended = turns.Ended(pb.STOP_REASON_CANCELLED, "s-1", is_cancelled_elsewhere=True)
    monkeypatch.setattr(turns, "run_turn", lambda *_: ended)
    monkeypatch.setattr(turns, "_lines", lambda *, asked: ["hello"])
    with pytest.raises(Exit):
        turns.chat(turns.TurnOptions())
    assert "what ran is on record: `onrecord show s-1`" in capsys.readouterr().err
