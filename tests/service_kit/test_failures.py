"""Where results are JSON, so is what a program says on stderr."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from audit_svc.errors import NotFound
from service_kit.terminal.failures import Failed, asks_for_json, tell
from service_kit.terminal.printing import Printer, put_stderr_in_json
from tests.service_kit.test_command_line import PROGRAMS
from tests.support.command_line import Result, invoke


def error_of(result: Result) -> dict[str, object]:
    """What the one line on stderr says; nothing is on stdout."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.isprintable()
    error: dict[str, object] = json.loads(line)["error"]
    assert error["exit_code"] == result.exit_code
    return error


@pytest.fixture(autouse=True)
def text_again() -> Iterator[None]:
    yield
    put_stderr_in_json(False)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["calls", "--json", "--limit", "many"], "argument --limit: 'many' is not a whole number"),
        (["calls", "--json", "--since", "someday"], "--since: "),
        (["export", "--format", "jsonl", "--label", "x"], "--label: 'x' is not key=value"),
        (["show", "x", "--json", "--db", "/none/audit.db"], "/none/audit.db"),
    ],
)
def test_what_is_wrong_is_said_in_the_same_words(words, wanted):
    message = str(error_of(invoke(PROGRAMS[0], words))["message"])
    assert wanted in message
    for_people = [word.replace("jsonl", "csv") for word in words if word != "--json"]
    assert invoke(PROGRAMS[0], for_people).stderr.endswith(f"{message}\n")


def test_a_wrong_setting_is_told_as_json():
    error = error_of(invoke(PROGRAMS[0], ["check", "--json"], {"AUDIT_DRAIN_SECONDS": "many", "AUDIT_QUEUE_ROWS": "-"}))
    assert str(error["message"]).count("\n") == 1
    assert "AUDIT_DRAIN_SECONDS" in str(error["message"])


@pytest.mark.long
def test_a_service_that_is_away_is_told_with_its_code():
    for program, words in ((PROGRAMS[0], ["calls"]), (PROGRAMS[1], ["engines"])):
        error = error_of(invoke(program, [*words, "--json", "--target", "127.0.0.1:9"]))
        assert error["code"] == "UNAVAILABLE"
        assert "nobody listens on 127.0.0.1:9: " in str(error["message"])
        assert error["exit_code"] == 1


class Answer(grpc.RpcError):
    """An answer of a service, with its details."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.NOT_FOUND

    def trailing_metadata(self) -> Any:
        status = status_pb2.Status(code=5)
        status.details.add().Pack(error_details_pb2.RetryInfo())
        info = error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="onrecord.dev", metadata={"resource": "session"})
        status.details.add().Pack(info)
        return [("grpc-status-details-bin", status.SerializeToString())]


def test_the_reason_is_that_of_the_error_from_a_service_as_from_a_file(capsys):
    put_stderr_in_json(True)
    tell(Failed("none", 1, Answer()))
    tell(Failed("none", 1, NotFound("none", "session", "s1")))
    served, read = (json.loads(line)["error"] for line in capsys.readouterr().err.splitlines())
    assert served == {"code": "NOT_FOUND", "exit_code": 1, "message": "none", "reason": "NOT_FOUND"} | {
        "metadata": {"resource": "session"}
    }
    assert (read["reason"], read["metadata"]) == ("NOT_FOUND", {"resource": "session", "id": "s1"})


def test_a_note_is_an_object_too_and_nothing_in_it_acts_on_a_terminal(capsys):
    Printer(stderr=True).print("as it is")
    tell(Failed("two\nlines \x1b[2J"))
    assert capsys.readouterr().err == "as it is\ntwo\nlines \\x1b[2J\n"
    put_stderr_in_json(True)
    Printer(stderr=True).print("as it is", style="yellow")
    Printer(stderr=True).print("")
    tell(Failed("two\nlines \x1b[2J"))
    note, error = capsys.readouterr().err.splitlines()
    assert json.loads(note) == {"note": "as it is"}
    assert json.loads(error)["error"]["message"] == "two\nlines \x1b[2J"
    assert error.isprintable()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["calls", "--json"], True),
        (["export", "--format", "jsonl"], True),
        (["export", "--format=jsonl"], True),
        (["export", "--format", "csv"], False),
        (["run", "--", "--json"], False),
        ([], False),
    ],
)
def test_who_asks_for_json(words, wanted):
    assert asks_for_json(words) is wanted
