"""Asks a service for its health ten times a second, and compares each answer with what a campaign knows to be true."""

import os
import threading
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recording.channel.options import DIRECT
from service_kit.health import DETAIL_KEY

EVERY_SECONDS = 0.1
ANSWER_SECONDS = 2
TOLD_SECONDS = 60
LATE = "no answer within"
"""What a service tells whose check was not done in time."""
BUSY_LOAD = 4 * (os.cpu_count() or 1)
"""The load of the machine in its last minute above which a check may be late by that alone."""


class HealthWatch:
    """A thread that watches one address over the lives of its service."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, [*DIRECT, ("grpc.max_reconnect_backoff_ms", 100)])
        self._changed = threading.Condition()
        self._truth: bool | None = None
        self._gone = False
        self._phase = 0
        self._serves: bool | None = None
        self._detail = ""
        self._ending = threading.Event()
        self.compared = 0
        """Answers that were compared with the truth."""
        self.untrue: list[str] = []
        """What was answered while the opposite was true."""
        self.late = 0
        """Answers that a check was late on a busy machine: they are true, and no fault of the service's."""
        self._thread = threading.Thread(target=self._run, name="health-watch", daemon=True)
        self._thread.start()

    def unknown(self) -> None:
        """From now on nobody knows: something is being done to the service."""
        self._begin(None)

    def must_tell(self, *, serves: bool, detail: str = "", lasting: bool = True) -> None:
        """Waits until the service tells this, with these words; from then on, if it lasts, no other answer is true.

        Raises:
            TimeoutError: it does not tell it.
        """

        def told() -> bool:
            return self._serves is serves and detail in self._detail

        with self._changed:
            if not self._changed.wait_for(told, TOLD_SECONDS):
                wanted = f"{'SERVING' if serves else 'NOT_SERVING'} {detail}".strip()
                raise TimeoutError(f"health never told {wanted}, but {self._serves} {self._detail}")
            self.compared += 1
        self._begin(serves if lasting else None)

    def must_be_silent(self) -> None:
        """From now on any answer is untrue: the service was killed, and nobody else has its address."""
        self._begin(None, gone=True)

    def close(self) -> None:
        """Ends the thread."""
        self._ending.set()
        self._thread.join()
        self._channel.close()

    def _begin(self, truth: bool | None, *, gone: bool = False) -> None:
        with self._changed:
            self._truth, self._gone, self._phase = truth, gone, self._phase + 1
            if truth is None:
                self._serves = None

    def _run(self) -> None:
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        while not self._ending.wait(EVERY_SECONDS):
            phase = self._phase
            try:
                answer, call = stub.Check.with_call(health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS)
            except grpc.RpcError:
                with self._changed:
                    self.compared += self._gone and phase == self._phase
                continue
            self._judge(phase, answer.status == health_pb2.HealthCheckResponse.SERVING, _detail_of(call))

    def _judge(self, phase: int, serves: bool, detail: str) -> None:
        with self._changed:
            if phase != self._phase:
                return  # asked before the last change, so that either answer may be true
            self._serves, self._detail = serves, detail
            self._changed.notify_all()
            if self._truth and not serves and detail.startswith(LATE) and os.getloadavg()[0] > BUSY_LOAD:
                self.late += 1
            elif self._truth is not None or self._gone:
                self.compared += 1
                if serves is not self._truth:
                    self.untrue.append(f"{'SERVING' if serves else 'NOT_SERVING'} {detail}".strip())


def _detail_of(call: Any) -> str:
    return str(dict(call.trailing_metadata() or ()).get(DETAIL_KEY, b""), "utf-8")
