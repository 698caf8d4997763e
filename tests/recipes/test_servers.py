"""Web servers that fork, thread, spawn and replace their workers."""

import json
import time
import urllib.request
from urllib.error import URLError

import pytest

from tests.recipes.applications import SECONDS, Application, Recorded, commands, until
from tests.support.ports import own_port

pytestmark = pytest.mark.recipes

GUNICORN, GEVENT, UWSGI = commands("gunicorn, uWSGI")
REQUESTS = 16


def ask(url: str) -> tuple[str, str] | None:
    """The id of the call behind an answer, and who answered; None before anybody listens."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            body = answer.read()
    except (URLError, ConnectionError):
        return None
    if "X-Call" in answer.headers:
        return answer.headers["X-Call"], answer.headers["X-Worker"]
    told = json.loads(body)
    return told["call"], told["worker"]


def serve(application: Application, command: str, *options: str, workers: int = 2) -> Recorded:
    """Starts a server, asks it until so many workers have answered, and ends it by SIGTERM."""
    recorded = Recorded()
    with own_port() as port, application.running(command, *(option.format(port=port) for option in options)) as server:

        def first() -> tuple[str, str] | None:
            assert server.poll() is None, application.stderr()
            return ask(f"http://127.0.0.1:{port}/Kiel")

        recorded.add(*until(first, application.stderr))
        while len(recorded.ids) < REQUESTS or len(recorded.by_process) < workers:
            time.sleep(0.01)
            told = ask(f"http://127.0.0.1:{port}/Kiel")
            assert told is not None, application.stderr()
            recorded.add(*told)
        server.terminate()
        assert server.wait(SECONDS) == 0, application.stderr()
    assert application.stdout() == ""
    return recorded


@pytest.mark.parametrize(
    ("command", "more"),
    [
        pytest.param(GUNICORN, (), id="preload"),
        pytest.param(GEVENT, (), id="gevent"),
        pytest.param(GEVENT, ("--preload",), id="gevent-preload"),
    ],
)
def test_workers_of_gunicorn_record_all_calls_and_are_replaced(make_application, command, more):
    application = make_application("gunicorn, uWSGI")
    recorded = serve(application, command, "--bind", "127.0.0.1:{port}", "--max-requests", "5", *more, workers=3)
    application.settled(recorded)


@pytest.mark.parametrize("more", [(), ("--lazy-apps",), ("--py-call-osafterfork",)], ids=" ".join)
def test_workers_of_uwsgi_record_all_calls(make_application, more):
    """Forked in C: Python is told by --py-call-osafterfork alone."""
    application = make_application("gunicorn, uWSGI")
    application.settled(serve(application, UWSGI, "--http-socket", "127.0.0.1:{port}", *more))


def test_workers_of_fastapi_open_the_ledger_in_their_lifespan(make_application):
    application = make_application("FastAPI")
    [command] = commands("FastAPI")
    application.settled(serve(application, command, "--port", "{port}"))
