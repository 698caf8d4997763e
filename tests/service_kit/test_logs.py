"""Logs, seen from outside: a process that logs, and what its stderr holds."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from demo.processes import REPOSITORY
from service_kit.observing.log_writer import LogWriter

PROGRAM = """
import logging, structlog
from service_kit.observing.logs import configure_logging
configure_logging("info", "STYLE")
log = structlog.get_logger("sample")
structlog.contextvars.bind_contextvars(turn_id="t1")
log.debug("sample.hidden")
log.info("sample.event", rows=3)
logging.getLogger("httpx").info("quiet")
logging.getLogger("grpc").warning("loud")
def fail(hidden):
    raise ValueError("told")
try:
    fail("secret in a local variable")
except ValueError:
    log.exception("sample.failed")
    logging.getLogger("grpc").exception("foreign.failed")
import grpc
try:
    try:
        raise OSError(28, "No space left on device", "/told")
    except OSError as error:
        raise RuntimeError("told") from error
except RuntimeError as error:
    log.warning("sample.caught", exc_info=error.__cause__)
what = ("quoted span", 3, 0.5, grpc.StatusCode.UNKNOWN, "quoted details")
logging.getLogger("opentelemetry.x").error("Failed to export %s after %d tries in %.2f s: %s, %s", *what)
logging.getLogger("asyncio").error("a future failed\\nfuture: <Task exception=ValueError('quoted')>")
logging.getLogger("other").error("%(a)s", {"a": "quoted"})
logging.getLogger("other").error("%d", "quoted")
"""


def lines(style: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("STYLE", style)],
        cwd=REPOSITORY,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.long
def test_every_line_is_json_with_its_context_and_other_libraries_are_heard_from_warning_on():
    events = [json.loads(line) for line in lines("json")]
    assert [event["event"] for event in events][:4] == ["sample.event", "loud", "sample.failed", "foreign.failed"]
    assert events[0]["rows"] == 3
    assert all(event["turn_id"] == "t1" for event in events)
    assert events[1]["logger"] == "grpc"


@pytest.mark.long
@pytest.mark.parametrize("style", ["json", "console"])
def test_exceptions_are_logged_without_their_words_and_local_variables(style):
    """A model server's or a person's words end up in both."""
    text = "\n".join(lines(style))
    assert text.count("ValueError") >= 2
    assert text.count("OSError (No space left on device)") == 1
    source = (
        'fail("secret in a local variable")',
        'raise ValueError("told")',
        'OSError(28, "No space left on device", "/told")',
    )
    for line in source:
        text = text.replace(line, "").replace(json.dumps(line)[1:-1], "")
    assert "told" not in text
    assert "secret in a local variable" not in text


@pytest.mark.long
@pytest.mark.parametrize("style", ["json", "console"])
def test_what_another_library_quotes_is_not_logged(style):
    """Its own words and numbers are: a trace collector's, or a peer's, error text is somebody else's."""
    text = "\n".join(lines(style)).replace("\\u2026", "…")
    assert "Failed to export … after 3 tries in 0.50 s: StatusCode.UNKNOWN, …" in text
    assert "a future failed" in text
    assert "quoted" not in text


def test_lines_that_nobody_takes_are_lost_and_counted(monkeypatch):
    """Of a log whose reader has gone each line; of one that stands still those beyond the bound."""
    monkeypatch.setattr(LogWriter, "current", None)
    reader, writer = os.pipe()
    os.close(reader)
    gone = LogWriter(writer)
    for _ in range(3):
        gone.write("a line\n")
    gone.close(60)
    os.close(writer)
    (lost,) = gone.collect()
    assert lost.samples[0].value == 3

    reader, writer = os.pipe()
    still = LogWriter(writer, max_waiting_bytes=200_000)
    for _ in range(5):
        still.write("x" * 99_999 + "\n")  # more than a pipe holds
    (lost,) = still.collect()
    assert lost.samples[0].value >= 2
    os.close(reader)
    still.close(60)
    os.close(writer)


@pytest.mark.long
def test_lines_are_for_people_where_stderr_is_a_terminal():
    assert all(line.startswith("{") for line in lines("auto"))
    leader, follower = pty.openpty()
    program = "import structlog; from service_kit.observing.logs import configure_logging as c; c('info', 'auto'); "
    program += "structlog.get_logger('sample').info('sample.event', rows=3)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stderr=follower):
        os.close(follower)
        read = b""
        with suppress(OSError):  # when nobody has it open any more
            while part := os.read(leader, 4096):
                read += part
    os.close(leader)
    assert b"sample.event" in read
    assert not read.startswith(b"{")
