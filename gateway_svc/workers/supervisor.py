"""The process above the workers: starts them, starts again who dies, ends them all at a signal, has one metrics page.

It serves no call, so that little can happen to it. When it is killed its workers notice, drain and end.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from gateway_svc.settings import GatewaySettings
from gateway_svc.workers.pages import Pages
from gateway_svc.workers.table import Field, Table
from gateway_svc.workers.worker import VARIABLE, new_secret
from service_kit.observing.metrics import serve_metrics
from service_kit.run import END_SIGNALS, FORCE_AFTER_SECONDS
from service_kit.server import CANNOT_LISTEN_HINT, EXIT_CANNOT_LISTEN
from service_kit.settings import refuse

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
"""Before a worker that died is started again; twice as long each time that it does not live for a while."""
GOOD_LIFE_SECONDS = 30.0
_SIGNALS = (*END_SIGNALS, signal.SIGCHLD)


@dataclass(slots=True)
class _Slot:
    """A worker's place, which one process after another has."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS
    due: float = 0.0
    """When the next one is to be started, by time.monotonic()."""
    restarts: int = 0


class Supervisor:
    """The workers of one gateway."""

    def __init__(self, settings: GatewaySettings, folder: Path, table: Table, address: str) -> None:
        """Takes the folder and the table that they share, and the address that they listen on."""
        self._table = table
        self._folder = folder
        self._drain_seconds = settings.drain_seconds
        self._environment = {**os.environ, "GATEWAY_LISTEN": address}
        self._secret = new_secret()
        self._lifelines: dict[int, int] = {}
        self.slots = [_Slot(number) for number in range(table.workers)]
        self._code = 0
        self._ending = False

    def run(self) -> int:
        """Runs the workers until one of END_SIGNALS; returns the exit code. The signals must be blocked."""
        self._start_due()
        while any(slot.process for slot in self.slots) or not self._ending:
            due = min((slot.due for slot in self.slots if slot.process is None), default=time.monotonic() + 1)
            ignored = {signal.SIGCHLD, signal.SIGHUP} if self._ending else {signal.SIGCHLD}  # a hangup comes twice
            info = signal.sigtimedwait(_SIGNALS, max(0.0, min(1.0, due - time.monotonic())))
            if info is not None and info.si_signo not in ignored:
                self._end(signal.SIGTERM)
            self._reap()
            if not self._ending:
                self._start_due()
        return self._code

    def _start_due(self) -> None:
        for slot in self.slots:
            if slot.process is None and slot.due <= time.monotonic():
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        reading, writing = os.pipe()
        try:
            slot.process = subprocess.Popen(
                [sys.executable, "-m", "gateway_svc", "worker"],
                stdin=reading,
                env={**self._environment, VARIABLE: f"{slot.number}/{len(self.slots)}/{self._folder}"},
                start_new_session=True,  # a terminal's ^C comes through the supervisor alone
            )
        finally:
            os.close(reading)
        os.write(writing, self._secret)
        self._lifelines[slot.number] = writing
        slot.started = time.monotonic()
        log.info("worker.started", worker=slot.number, process_id=slot.process.pid, restarts=slot.restarts)

    def _reap(self) -> None:
        for slot in self.slots:
            if slot.process is None or (code := slot.process.poll()) is None:
                continue
            started = self._table.get(slot.number, Field.STARTED)
            self._table.clear(slot.number)
            os.close(self._lifelines.pop(slot.number))
            slot.process = None
            if self._ending:
                if code != -signal.SIGTERM:  # which only a worker dies of that does not serve yet
                    self._code = max(self._code, code if code >= 0 else 128 - code)
                continue
            if not started and code > 0 and not slot.restarts:
                self._code = code  # it says itself what is wrong, and would again
                self._end(signal.SIGTERM)
                continue
            now = time.monotonic()
            if now - slot.started >= GOOD_LIFE_SECONDS:
                slot.pause = FIRST_PAUSE_SECONDS
            slot.due, slot.restarts = now + slot.pause, slot.restarts + 1
            log.error("worker.died", worker=slot.number, exit_code=code, restart_after_seconds=slot.pause)
            slot.pause = min(LONGEST_PAUSE_SECONDS, 2 * slot.pause)

    def _end(self, number: signal.Signals) -> None:
        """Has all workers drain; the second time they end at once, as one process would."""
        if not self._ending:
            log.info("gateway.draining", grace_seconds=self._drain_seconds)
        self._ending = True
        for slot in self.slots:
            if slot.process is not None:
                slot.process.send_signal(number)


def supervise(settings: GatewaySettings, workers: int) -> int:
    """Runs a gateway of so many workers until one of END_SIGNALS; returns the exit code.

    Raises:
        SystemExit: with code 1 when the address cannot be had, with code 2 when no temporary folder can.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # before there is any thread; a worker takes them again
    with ExitStack() as stack:
        address = stack.enter_context(_kept_port(settings.listen, settings.drain_seconds))
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onrecord-")))
            table = stack.enter_context(Table(folder / "table", workers))
        except OSError as error:
            refuse([f"TMPDIR: workers share files in a folder for temporary files, and have none: {error.strerror}"])
        supervisor = Supervisor(settings, folder, table, address)
        registry = CollectorRegistry()
        registry.register(
            Pages(folder, lambda: [(slot.restarts, slot.process is not None) for slot in supervisor.slots])
        )
        stack.enter_context(serve_metrics(settings.metrics_listen, registry))
        return supervisor.run()


@contextmanager
def _kept_port(listen: str, drain_seconds: float) -> Iterator[str]:
    """Keeps the port for the workers, who share it, and yields the address with its real number.

    Workers whose supervisor was killed may have the port until they have drained.

    Raises:
        SystemExit: with code 1 when the address cannot be had.
    """
    host, _, port = listen.rpartition(":")
    deadline = time.monotonic() + drain_seconds + FORCE_AFTER_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                number = _bind(stack, host.strip("[]"), int(port))
                break
            except OSError as error:
                if time.monotonic() > deadline or not isinstance(error, _InUse):
                    log.error(
                        "service.cannot_listen",
                        address=listen,
                        reason=error.strerror,
                        hint=CANNOT_LISTEN_HINT,
                    )
                    raise SystemExit(EXIT_CANNOT_LISTEN) from None
                time.sleep(0.2)
        yield f"{host}:{number}"


class _InUse(OSError):
    """Another process has the port."""


def _bind(stack: ExitStack, host: str, port: int) -> int:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in found:
        for shared in (False, True):  # first whether it is free: who shares a port too would get some of the calls
            one = socket.socket(family, kind, protocol)
            try:
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                one.bind((address[0], port, *address[2:]))
                if not shared:
                    one.listen(1)
            except OSError as error:
                one.close()
                if error.errno == 98:
                    raise _InUse(*error.args) from None
                raise
            port = int(one.getsockname()[1])
            if shared:
                stack.callback(one.close)
            else:
                one.close()
    return port
