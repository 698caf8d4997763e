"""`audit-svc tail` beside a service that goes away and comes back, both as processes."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.processes import REPOSITORY, Service, start_service
from tests.audit_svc.samples import audit_row
from tests.audit_svc.test_process import MODULE, record

WAIT_SECONDS = 30.0


class Tail:
    """The command, what it has shown and what it has said."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.shown: list[str] = []
        self.said: list[str] = []
        assert process.stdout
        assert process.stderr
        out, err = process.stdout, process.stderr
        self._readers = [
            threading.Thread(target=lambda: self.shown.extend(json.loads(line)["id"] for line in out)),
            threading.Thread(target=lambda: self.said.extend(err)),
        ]
        for reader in self._readers:
            reader.start()

    def wait_until_shown(self, row: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while row not in self.shown:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, (self.shown, self.said)
            time.sleep(0.01)

    def end(self) -> int:
        code = self.process.wait(WAIT_SECONDS)
        for reader in self._readers:
            reader.join()
        return code


@contextmanager
def tail(address: str, *args: str) -> Iterator[Tail]:
    command = [sys.executable, "-m", MODULE, "tail", "--json", "--target", address, *args]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'protos'}", "COLUMNS": "240"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Tail(process)
        finally:
            process.kill()


def start(database: Path, listen: str = "127.0.0.1:0") -> Service:
    return start_service(MODULE, {"AUDIT_DB": str(database), "AUDIT_LISTEN": listen}, "serve")


def follow(following: Tail, service: Service) -> None:
    """Waits until following follows. Nothing says so but a row that it shows."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not following.shown:
        assert following.process.poll() is None, following.said
        assert time.monotonic() < deadline, following.said
        record(service, audit_row())
        time.sleep(0.1)


@pytest.mark.long
def test_a_tail_goes_on_after_each_restart_of_its_service_and_shows_each_row_once_in_order(tmp_path):
    with start(tmp_path / "audit.db") as service:
        address = service.address
        with tail(address) as following:
            follow(following, service)
            rows = [audit_row(id=f"row-{number}") for number in range(30)]
            record(service, *rows[:10])
            following.wait_until_shown("row-9")
            assert service.terminate() == 0
            for number, end in ((10, Service.kill), (20, Service.terminate)):
                with start(tmp_path / "audit.db", address) as again:
                    # Stored at once: whether the tail is there already or comes later, it must show them.
                    record(again, *rows[number : number + 10])
                    following.wait_until_shown(f"row-{number + 9}")
                    end(again)
            following.process.send_signal(signal.SIGINT)
            assert following.end() == 130
    assert [row for row in following.shown if row.startswith("row-")] == [row.id for row in rows]
    assert len(following.shown) == len(set(following.shown))
    notes = [json.loads(line)["note"] for line in following.said]
    waits = [note for note in notes if note.endswith("; waiting for the service")]
    assert len(waits) >= 2
    assert notes.count("the service is back: going on") == 2


@pytest.mark.long
def test_a_tail_that_is_told_not_to_wait_ends_with_its_service(tmp_path):
    with start(tmp_path / "audit.db") as service, tail(service.address, "--no-reconnect") as following:
        follow(following, service)
        service.terminate()
        assert following.end() == 1
    error = json.loads(following.said[-1])["error"]
    assert (error["code"], error["message"]) == ("UNAVAILABLE", "the ledger is shutting down")


@pytest.mark.long
def test_a_tail_of_a_service_that_is_not_there_ends_and_asks_whether_it_runs():
    with tail("127.0.0.1:1") as following:
        assert following.end() == 1
    assert "nobody listens on 127.0.0.1:1: is an audit service running there?" in following.said[-1]
