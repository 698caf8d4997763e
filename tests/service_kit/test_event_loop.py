"""The loop of a service hears of gRPC's events however many come between two of its turns."""

import asyncio
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from service_kit import event_loop
from service_kit.event_loop import ServiceLoop

WAKEUPS = 1000


def test_all_wake_ups_are_taken_by_one_turn():
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    told: list[bytes] = []

    def _handle_events(_loop: object) -> None:
        told.append(reading.recv(1))

    async def main() -> None:
        asyncio.get_running_loop().add_reader(reading, partial(_handle_events, None))
        for _ in range(3):
            writing.sendall(b"1" * WAKEUPS)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        asyncio.get_running_loop().remove_reader(reading)

    with reading, writing:
        event_loop.run(main())
    assert told == [b"1"] * 3


def test_no_thread_keeps_pythons_lock_from_the_loop_for_long():
    async def main() -> float:
        return sys.getswitchinterval()

    assert event_loop.run(main()) < 0.001


def test_the_reader_of_grpc_is_known(monkeypatch):
    """A release of gRPC that hears of its events in another way must be looked at."""
    taken: list[socket.socket] = []

    def take(wakeups: socket.socket, callback: Callable[[], None]) -> None:
        taken.append(wakeups)
        callback()

    monkeypatch.setattr(event_loop, "_take_once", take)

    async def main() -> bytes:
        async def answer(request: bytes, _context: object) -> bytes:
            return request

        server = grpc.aio.server()
        handlers: dict[str, Any] = {"Method": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.unary_unary("/a.Service/Method")
            answered: bytes = await method(b"a")
        await server.stop(None)
        return answered

    assert event_loop.run(main()) == b"a"
    assert taken


def test_other_readers_are_left_alone():
    reading, writing = socket.socketpair()
    told: list[bytes] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ServiceLoop)
        loop.add_reader(reading, lambda: told.append(reading.recv(2)))
        writing.sendall(b"abc")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loop.remove_reader(reading)

    with reading, writing:
        event_loop.run(main())
    assert told[0] == b"ab"
