"""`onrecord` as a person uses it: real processes, a scripted model, a terminal of 80 columns."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from onrecord_cli.folder import Running, find, held, tell
from tests.support.person import Home, serve_model, services_of, wait_until_none

SCRIPT = """
[[steps]]
text = "I will look. "
tool_calls = [
  { name = "read", arguments = { path = "none.txt" } },
  { name = "bash", arguments = { command = "sleep 60" } },
]
[[steps]]
text = "Nothing is here."
"""
QUICK = SCRIPT.replace("sleep 60", "exit 2")


@pytest.fixture
def home(tmp_path) -> Iterator[Home]:
    with serve_model(QUICK, tmp_path) as url:
        yield Home(tmp_path, url)


@pytest.fixture
def slow_home(tmp_path) -> Iterator[Home]:
    with serve_model(SCRIPT, tmp_path) as url:
        yield Home(tmp_path, url)


@pytest.mark.long
def test_a_setting_that_a_service_refuses_is_told_in_its_sentence_alone(home):
    home.environ |= {"ALL_PROXY": "socks5://proxy.example:1080", "GATEWAY_OLLAMA_URL": "http://model.example"}
    home.environ |= {"GATEWAY_OLLAMA_MODEL": "m"}
    ran = home.run("up")
    assert ran.returncode == 1
    ended, *said = ran.stderr.splitlines()
    assert ended.startswith("the gateway ended with exit code 2; its log is ")
    assert len(said) == 1
    assert said[0].startswith("  ALL_PROXY: 'socks5://proxy.example:1080' is not an HTTP proxy")


@pytest.mark.long
def test_from_nothing_to_a_record_that_can_be_asked(home):
    up = home.terminal("up")
    up.until("ready")
    running = find(home.state)
    assert running
    assert running.pid == up.process.pid

    ran = home.run("run", "-", "--title", "first look", given="What is here?\n")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "I will look. \nNothing is here.\n"
    assert "bash: exit 2 · " in ran.stderr

    again = home.terminal("up")
    assert any("it runs already" in line for line in again.end())
    assert again.process.returncode == 1

    went_on = home.run("run", "--continue", "And now?")
    assert went_on.returncode == 0, went_on.stderr
    (session,) = [json.loads(line) for line in home.run("sessions", "--json").stdout.splitlines()]
    assert (session["turns"], session["labels"]) == (2, {"title": "first look"})
    both = home.run("run", "hi", "--continue", "--title", "x")
    assert (both.returncode, "--continue: --title" in both.stderr) == (2, True)

    chat = home.terminal("chat")
    chat.until("> ")
    chat.type("/help\r")
    chat.until("there is no /help: ^C cancels a turn, ^D or /exit ends")
    chat.type("hello\r")
    chat.until("tokens in")
    chat.until("> ", chat.text.index("tokens in"))
    chat.type("\x04")
    chat.end()
    assert chat.process.returncode == 0

    short = session["id"][-8:]
    for words in (["calls"], ["sessions"], ["usage"], ["errors"], ["show", short], ["calls", "--session", short]):
        screen = home.terminal(*words)
        lines = screen.end()
        assert screen.process.returncode == 0, lines
        assert short in "".join(lines) or words[0] in ("usage", "errors")
        if words[0] != "show":
            assert max(map(len, lines)) <= 80, lines
    shown = home.run("show", "@last").stdout.splitlines()[0]
    assert shown.startswith("session ")
    assert shown != f"session {session['id']}"

    up.type("\x03")
    lines = up.end()
    assert up.process.returncode == 0, lines
    assert [line.split()[0] for line in lines if line][:5] == ["ledger", "gateway", "tools", "door", "ready"]
    assert max(map(len, lines)) <= 80, lines
    wait_until_none(home)
    assert find(home.state) is None
    assert home.run("calls", "--json").stdout.count("\n") == 6, "the ledger's file is asked where nothing runs"


@pytest.mark.long
def test_a_run_starts_what_it_needs_and_ctrl_c_says_what_it_cost(slow_home):
    ran = slow_home.terminal("run", "What is here?")
    ran.until("▸ bash")
    ran.until("bash · 1 s")
    ran.type("\x03")
    lines = ran.end()
    assert ran.process.returncode == 130, lines
    assert any(line.startswith("cancelling bash") for line in lines), lines
    assert any(line.startswith("cancelled in ") and "1 model request · 2 tool calls" in line for line in lines)
    assert any("tokens in" in line and "$0.000000" in line for line in lines)
    assert max(map(len, lines)) <= 80, lines
    wait_until_none(slow_home)
    outcomes = {json.loads(line)["outcome"] for line in slow_home.run("calls", "--json").stdout.splitlines()}
    assert "cancelled" in outcomes


def test_a_run_beside_services_that_are_being_started_waits_for_them(home):
    """And does not say that it starts any."""
    with held(home.state):
        begun = threading.Timer(1, tell, (home.state, Running(os.getpid(), "127.0.0.1:1", gateway="127.0.0.1:1")))
        begun.start()
        ran = home.run("run", "hi")
        begun.join()
    assert (ran.returncode, "starting" in ran.stderr, "127.0.0.1:1" in ran.stderr) == (1, False, True)


@pytest.mark.long
def test_what_lifts_a_stop_is_named_wherever_it_is_met(slow_home):
    up = slow_home.terminal("up")
    up.until("ready")
    ran = slow_home.terminal("run", "What is here?")
    ran.until("▸ bash")
    stopped = slow_home.run("stop", "--everything", "--reason", "a drill")
    (stop,) = [json.loads(line) for line in slow_home.run("stops", "--json").stdout.splitlines()]
    lifts = f'`onrecord resume {stop["id"]} --reason "…"` lifts it'
    assert lifts in stopped.stderr
    ended = " ".join(" ".join(ran.end()).split())
    assert (ran.process.returncode, f"a drill ({lifts})" in ended) == (1, True), ended
    refused = slow_home.run("run", "And now?")
    assert (refused.returncode, f"a drill ({lifts})" in refused.stderr) == (1, True), refused.stderr
    told = f"everything is stopped: {lifts}"
    for words in (["show", "@last"], ["errors"]):
        assert told in slow_home.run(*words).stderr, words
    assert slow_home.run("resume", stop["id"][-8:], "--reason", "over").returncode == 0
    for name in (stop["id"], stop["id"][-8:]):
        again = slow_home.run("resume", name, "--reason", "over")
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr.startswith(f"the stop {stop['id']} (everything) was already lifted, at 20")
    unknown = slow_home.run("resume", "deadbeef", "--reason", "over")
    assert "`onrecord stops` lists those in force, `onrecord controls --kind resume` those that" in unknown.stderr
    slow_home.run("stop", "--everything", "--reason", "a drill")
    (stop,) = [json.loads(line) for line in slow_home.run("stops", "--json").stdout.splitlines()]
    told = f'everything is stopped: `onrecord resume {stop["id"]} --reason "…"` lifts it'
    up.type("\x03")
    up.end()

    up = slow_home.terminal("up")
    up.until("lifts it")
    up.type("\x03")
    lines = up.end()
    assert told in " ".join(" ".join(lines).split())


@pytest.mark.long
def test_a_ledger_that_is_killed_is_what_both_terminals_say_and_in_few_lines(slow_home):
    slow_home.environ["GATEWAY_DRAIN_SECONDS"] = "1"
    up = slow_home.terminal("up")
    up.until("ready")
    ran = slow_home.terminal("run", "What is here?")
    ran.until("▸ bash")
    words = b"audit_svc\0serve\0"
    (ledger,) = [pid for pid in services_of(slow_home) if words in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(ledger, signal.SIGKILL)
    how = "the ledger was killed (SIGKILL), by somebody or by the kernel for want of memory"
    said = " ".join(" ".join(ran.end()).split())
    assert f"the turn was not cancelled here: {how}, and the others end with it; once all runs again," in said
    lines = up.end()
    assert " ".join(lines).count("exit code") == 0
    told = lines[next(at for at, line in enumerate(lines) if "ready" in line) + 1 :]
    assert " ".join(" ".join(told).split()).startswith(f"{how}; its log is {slow_home.state}/log/ledger.log")
    assert len(told) <= 4, told


@pytest.mark.long
def test_whoever_kills_it_leaves_no_service_behind(home):
    up = home.terminal("up", "--no-gateway")
    up.until("ready")
    assert len(services_of(home)) >= 2
    asked = home.run("run", "hi")
    assert (asked.returncode, "has no gateway" in asked.stderr) == (1, True)
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    wait_until_none(home)
    assert find(home.state) is None
    assert "nothing matches" in home.run("calls").stderr
