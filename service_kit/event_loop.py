"""The event loop of a service. It takes all of gRPC's wake-ups at once, and knows when its turn began.

A thread of grpc.aio queues each event and writes a byte to a socket; the loop takes one byte at a turn, and all events.
So the bytes pile up where several events come in a turn. Once some 280 wait, the thread stands in its write until three
quarters of them are taken (`sock_alloc_send_pskb`), a turn for each: while the loop was busy with one turn's work of
3 ms at a time, no other call was heard for 2 s.
"""

import asyncio
import selectors
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST_BYTES = 4096
_SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock while another wants it; 0.005 by default. The loop wants it several times
for each call, and threads that sync, read files or write transcripts had it meanwhile."""


class _Turns(selectors.DefaultSelector):
    """Each turn of the loop begins where it has looked what is ready."""

    began = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        self.began = perf_counter()
        return ready


class ServiceLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._turns = _Turns()
        super().__init__(self._turns)

    @property
    def turn_began(self) -> float:
        """When the tasks of this turn began to work, by perf_counter(), in seconds."""
        return self._turns.began

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """As asyncio's. What gRPC wants to be called at has one byte to read each time."""
        if isinstance(fd, socket.socket) and _is_of_grpc(callback):
            super().add_reader(fd, lambda: _take_once(fd, partial(callback, *args)))
        else:
            super().add_reader(fd, callback, *args)


def run(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run() on a ServiceLoop, which gets Python's lock soon, whatever other threads of the process do."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=ServiceLoop) as runner:
        return runner.run(main)


def _is_of_grpc(callback: Callable[..., Any]) -> bool:
    return isinstance(callback, partial) and getattr(callback.func, "__name__", "") == "_handle_events"


def _take_once(wakeups: socket.socket, callback: Callable[[], Any]) -> None:
    """The events are queued before their bytes are written, so the last byte stands for all."""
    with suppress(BlockingIOError):
        if (more := len(wakeups.recv(_MOST_BYTES, socket.MSG_PEEK)) - 1) > 0:
            wakeups.recv(more)
    callback()
