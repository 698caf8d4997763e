"""The port for metrics, which anybody who reaches it may talk to."""

import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from prometheus_client import Counter

from service_kit.observing import metrics
from service_kit.observing.metrics import new_registry, serve_metrics
from tests.support.ports import needs_ipv6, own_port
from tests.support.scrapes import scrape_address


def test_connections_that_say_nothing_are_let_go_and_cannot_make_threads_without_end(monkeypatch):
    monkeypatch.setattr(metrics._Handler, "timeout", 0.5)
    registry = new_registry()
    Counter("sample", "A sample.", registry=registry).inc(3)
    with own_port() as port, serve_metrics(f"127.0.0.1:{port}", registry), ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(40)]
        for connection in silent:
            connection.settimeout(30)
            assert connection.recv(1) == b"", "it is closed, at once or after the time for silence"
        deadline = time.monotonic() + 120
        while True:
            try:
                assert scrape_address(f"127.0.0.1:{port}").value("sample_total") == 3
                break
            except OSError:
                assert time.monotonic() < deadline


def test_an_address_that_is_taken_ends_the_service_with_exit_code_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemExit) as ended, serve_metrics(listen, new_registry()):
            pass
    assert ended.value.code == 1


@needs_ipv6
def test_it_listens_on_ipv6_too():
    with own_port("::1") as port, serve_metrics(f"[::1]:{port}", new_registry()):
        assert scrape_address(f"[::1]:{port}").names()


def listening() -> set[str]:
    """The sockets that this process listens on, as the kernel names them."""
    ours = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder's own, which is closed by then
            ours.add(path.readlink().name)
    tables = [table for name in ("tcp", "tcp6") if (table := Path("/proc/self/net", name)).exists()]
    lines = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return ours & {f"socket:[{fields[9]}]" for fields in lines if fields[3] == "0A"}


def test_nothing_listens_when_no_address_is_given():
    before = listening()
    with serve_metrics("", new_registry()):
        assert listening() == before
    with serve_metrics("127.0.0.1:0", new_registry()):
        assert len(listening() - before) == 1, "so it would have been seen"
