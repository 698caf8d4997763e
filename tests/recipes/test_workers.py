"""Pools of processes: Celery's, multiprocessing's, pytest's."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.recipes.applications import Recorded, commands

pytestmark = pytest.mark.recipes

CELERY_CONFIG = """
broker_url = "filesystem://"
broker_transport_options = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
result_backend = "file://results"
"""
"""Celery's own broker in files: no server is needed."""

SEND_TASKS = """
import json, sys
from tasks import fetch

url = sys.argv[1]
told = [task.get(timeout=180) for task in [fetch.delay(url) for _ in range(6)]]
def fail(**limit):
    return type(fetch.apply_async((url + "never",), **limit).get(timeout=180, propagate=False)).__name__

failed = [fail(soft_time_limit=10)] if sys.argv[2:] else []
told += [task.get(timeout=180) for task in [fetch.delay(url) for _ in range(4)]]
if sys.argv[2:]:  # last: a worker that is killed may have Celery's queue locked (celery/billiard#104, #457)
    failed.append(fail(time_limit=10))
print(json.dumps([told, failed]))
"""


@pytest.fixture
def page() -> Iterator[str]:
    """The address of a page; the one below it, `never`, does not answer."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("never"):
                ended.wait()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"high tide at noon")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        ended.set()
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("limits", [(), pytest.param(("limits",), marks=pytest.mark.long)])
def test_tasks_of_celery_record_all_calls_within_and_beyond_their_time_limits(make_application, page, limits):
    application = make_application("Celery")
    (application.folder / "celeryconfig.py").write_text(CELERY_CONFIG)
    for name in ("queue", "control", "results"):
        (application.folder / name).mkdir()
    (application.folder / "send.py").write_text(SEND_TASKS)
    [command] = commands("Celery")
    with application.running(command, "--max-tasks-per-child", "3") as worker:
        told, failed = json.loads(application.run("python send.py", page, *limits))
        worker.terminate()
        assert worker.wait(60) == 0, application.stderr()
    assert failed == (["SoftTimeLimitExceeded", "TimeLimitExceeded"] if limits else [])
    recorded = Recorded()
    for call, process in told:
        recorded.add(call, process)
    ended = application.outcomes_once_settled()["cancelled"]  # by SIGTERM, if that was faster than SIGKILL
    application.settled(recorded, **({"failed": 1, "cancelled": ended, "interrupted": 1 - ended} if limits else {}))
    assert not limits or ("failed", "the tool raised SoftTimeLimitExceeded") in application.rows().values()
    assert application.stdout().splitlines()[1:] == ["", "worker: Warm shutdown (MainProcess)"], "after send.py's line"


@pytest.mark.parametrize("command", commands("multiprocessing"), ids=lambda command: command.split()[-1])
def test_a_pool_records_all_calls_by_each_start_method(make_application, command):
    application = make_application("multiprocessing")
    recorded = Recorded()
    for call, process in json.loads(application.run(command)):
        recorded.add(call, process)
    assert len(recorded.ids) == 5
    application.settled(recorded)


def test_workers_of_pytest_record_all_calls(make_application):
    application = make_application("pytest-xdist")
    [command] = commands("pytest-xdist")
    said = application.run(command, "-p", "no:cacheprovider", "-q")
    took = r"[\d.]+s( \([\d:]+\))?"  # a minute or more is told in two ways
    assert re.fullmatch(rf"(bringing up nodes\.\.\.\s*)*\.{{4}} +\[100%\]\n4 passed in {took}\n", said), said
    assert application.outcomes_once_settled() == {"succeeded": 4}
