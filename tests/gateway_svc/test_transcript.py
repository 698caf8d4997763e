"""What a session's file must hold: everything that was said, whatever happened to the process that wrote it."""

import multiprocessing
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.errors import Busy, NotFound
from gateway_svc.messages import AssistantMessage, ToolMessage, UserMessage
from gateway_svc.turns.transcript import TAIL_BYTES, Transcript, closing_messages, read_state, to_line
from recording.calls import ToolCall

STATE = {"id": "s1", "revision": 1}
CALL = ToolCall("row-1", "call_1", "bash", '{"command": "ls"}')
CALL_2 = ToolCall("row-2", "call_1", "read", "{malformed")

text = st.text(max_size=20)
calls = st.builds(ToolCall, text, text, text, text)
messages = st.lists(
    st.builds(UserMessage, text)
    | st.builds(AssistantMessage, text, text, st.lists(calls, max_size=3).map(tuple))
    | st.builds(ToolMessage, text, text, text),
    max_size=8,
)


@given(messages)
def test_messages_come_back_as_they_were(tmp_path_factory, said):
    path = tmp_path_factory.mktemp("t") / "s1.jsonl"
    transcript = Transcript.create(path)
    transcript.append({"session": STATE})
    for message in said:
        transcript.append(to_line(message))
    transcript.close()
    reopened = Transcript.open(path)
    assert reopened.read() == (STATE, said)
    reopened.close()


@given(st.data())
def test_a_torn_last_line_is_cut_and_the_rest_stays(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("t") / "s1.jsonl"
    transcript = Transcript.create(path)
    transcript.append({"session": STATE})
    transcript.append(to_line(UserMessage("first")))
    whole = path.stat().st_size
    transcript.append(to_line(UserMessage("second, with text in it")))
    transcript.close()
    size = data.draw(st.integers(whole, path.stat().st_size - 1))
    with path.open("r+b") as file:
        file.truncate(size)
    reopened = Transcript.open(path)
    reopened.append(to_line(UserMessage("third")))
    assert reopened.read() == (STATE, [UserMessage("first"), UserMessage("third")])
    reopened.close()


def test_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "s1.jsonl"
    Transcript.create(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_unknown_session_is_told_by_its_name(tmp_path):
    with pytest.raises(NotFound, match="session s9"):
        Transcript.open(tmp_path / "s9.jsonl")
    with pytest.raises(NotFound, match="session s9"):
        read_state(tmp_path / "s9.jsonl")


def test_a_session_that_was_never_begun_is_not_found(tmp_path):
    path = tmp_path / "s1.jsonl"
    Transcript.create(path).close()
    with pytest.raises(NotFound):
        read_state(path)
    transcript = Transcript.open(path)
    with pytest.raises(NotFound):
        transcript.read()
    transcript.close()


def _hold(path, opened, done):
    transcript = Transcript.open(path)
    opened.set()
    done.wait()
    transcript.close()


def test_a_second_process_is_told_that_the_session_is_busy(tmp_path):
    path = tmp_path / "s1.jsonl"
    Transcript.create(path).close()
    spawn = multiprocessing.get_context("spawn")
    opened, done = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold, args=(path, opened, done))
    process.start()
    try:
        assert opened.wait(30)
        with pytest.raises(Busy, match="another gateway process"):
            Transcript.open(path)
    finally:
        done.set()
        process.join()
    Transcript.open(path).close()


def test_a_closed_transcript_is_free_though_a_process_that_is_being_started_has_its_file(tmp_path):
    path = tmp_path / "s1.jsonl"
    transcript = Transcript.create(path)
    of_the_other = os.dup(transcript._file.fileno())  # as by fork(), before exec()
    transcript.close()
    Transcript.open(path).close()
    os.close(of_the_other)


@pytest.mark.parametrize("after", [0, 10, TAIL_BYTES, 3 * TAIL_BYTES])
def test_the_last_state_is_found_however_much_was_said_after_it(tmp_path, after):
    path = tmp_path / "s1.jsonl"
    transcript = Transcript.create(path)
    transcript.append({"session": STATE})
    transcript.append({"session": {**STATE, "revision": 2}})
    transcript.append(to_line(UserMessage('{"session":' + "x" * after)))
    transcript.close()
    assert read_state(path)["revision"] == 2


@pytest.mark.parametrize(
    ("history", "missing"),
    [
        ([], []),
        ([UserMessage("hi"), AssistantMessage("done")], []),
        ([UserMessage("hi")], [AssistantMessage("note")]),
        (
            [UserMessage("hi"), AssistantMessage("", "", (CALL, CALL_2))],
            [ToolMessage("call_1", "bash", "note"), ToolMessage("call_1", "read", "note"), AssistantMessage("note")],
        ),
        (
            [UserMessage("hi"), AssistantMessage("", "", (CALL, CALL_2)), ToolMessage("call_1", "bash", "ok")],
            [ToolMessage("call_1", "read", "note"), AssistantMessage("note")],
        ),
        (
            [UserMessage("hi"), AssistantMessage("", "", (CALL,)), ToolMessage("call_1", "bash", "ok")],
            [AssistantMessage("note")],
        ),
    ],
)
def test_a_history_cut_anywhere_gets_what_every_server_wants(history, missing):
    assert closing_messages(history, "note") == missing
    assert closing_messages(history + missing, "note") == []
