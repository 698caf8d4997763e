"""Logs, seen from outside: a process that logs, and what its stderr holds."""

import json
import subprocess
import sys

import pytest

from demo.processes import REPOSITORY

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
"""


def lines(style: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("STYLE", style)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_line_is_json_with_its_context_and_other_libraries_are_heard_from_warning_on():
    events = [json.loads(line) for line in lines("json")]
    assert [event["event"] for event in events] == ["sample.event", "loud", "sample.failed", "foreign.failed"]
    assert events[0]["rows"] == 3
    assert all(event["turn_id"] == "t1" for event in events)
    assert events[1]["logger"] == "grpc"


@pytest.mark.parametrize("style", ["json", "console"])
def test_exceptions_are_logged_without_local_variables(style):
    text = "\n".join(lines(style))
    assert text.count("told") >= 2
    assert "secret in a local variable" not in text.replace('fail("secret in a local variable")', "")
