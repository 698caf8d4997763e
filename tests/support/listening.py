"""Scripted servers that leave nothing behind.

`asyncio.Server.close()` loses a connection that is half accepted: the collector finds its transport later, and fails
whichever test runs then. Here a connection belongs to a task from the moment that it is accepted.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]
"""Serves one connection, which is closed behind it."""

_ROUNDS = 3
"""Of the event loop, until each accepted connection has a transport that can be aborted."""


@asynccontextmanager
async def listening(
    serve: Serve, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None, limit: int = 2**16
) -> AsyncIterator[int]:
    """Serves at host and the yielded port, as asyncio.start_server does, until the body ends.

    Then it cancels what serves connections, and aborts and waits for them all. A client that leaves is no error.
    """
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def take(accepted: socket.socket) -> None:
        reader = asyncio.StreamReader(limit, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        with suppress(OSError, asyncio.IncompleteReadError):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await serve(reader, writer)
                if not writer.is_closing():
                    writer.close()
                await writer.wait_closed()
            finally:
                transport.abort()
                await writer.wait_closed()

    def accept() -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            task = loop.create_task(take(accepted))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    with socket.create_server((host, port), backlog=100) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener)
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
