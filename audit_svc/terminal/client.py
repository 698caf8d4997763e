"""The ledger that a command asks: a running service, or a file."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import grpc
import typer
from google.protobuf.message import Message
from onrecord.audit.v1 import administration_pb2_grpc, questions_pb2_grpc

from audit_svc.care import QueriesServicer
from audit_svc.query_log import QueryLog
from audit_svc.questions import QuestionServicer
from audit_svc.services import ROLES, STATUSES, error_interceptor
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.store import ReadableSqlite
from audit_svc.terminal.options import Source
from audit_svc.terminal.running import err, error_is_exit_code_1, progress, say_unseen
from recording.channel.options import CLIENT_OPTIONS
from recording.channel.token import Metadata
from service_kit.client import open_channel
from service_kit.observing.logs import configure_logging
from service_kit.printable import printable
from service_kit.server import answering, build_server

T = TypeVar("T")

PAGE = 1000
PAGE_SECONDS = 30.0
EXIT_FAILED = 1
EXIT_CANCELLED = 130


class Client:
    """Calls the RPCs that ask a ledger by name, with the caller's token."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        questions: Any = questions_pb2_grpc.QuestionServiceStub(channel)
        administration: Any = administration_pb2_grpc.AdministrationServiceStub(channel)
        self._rpcs = {**vars(questions), **vars(administration)}
        self._metadata = metadata

    def call(self, rpc: str, request: Message, timeout: float | None = None) -> Any:
        """Begins a call: of a unary RPC it can be awaited, a stream can be iterated. timeout is in seconds."""
        return self._rpcs[rpc](request, timeout=timeout, metadata=self._metadata)

    async def pages(self, rpc: str, request: Any, rows: str, limit: int) -> list[Any]:
        """Up to limit rows of a paged RPC, over as many pages as it takes; rows is their field."""
        found: list[Any] = []
        with progress("asking") as tell:
            while len(found) < limit:
                request.page_size = min(limit - len(found), PAGE)
                response = await self.call(rpc, request, PAGE_SECONDS)
                found += getattr(response, rows)
                request.page_token = response.next_page_token
                if not request.page_token:
                    break
                tell(len(found), 0 if limit == sys.maxsize else limit)
        return found


def ask(source: Source, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Runs work with a client of source. A failure ends the program with a sentence and exit code 1."""

    async def connected() -> T:
        async with connect(source) as client:
            return await work(client)

    return run(source, connected())


def listed(source: Source, rpc: str, request: Any, rows: str, limit: int = sys.maxsize) -> list[Any]:
    """Up to limit rows of a paged RPC; rows is their field."""
    return ask(source, lambda client: client.pages(rpc, request, rows, limit))


def run(source: Source, work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that asks source. Failures end the program as in ask()."""
    with error_is_exit_code_1():
        try:
            return asyncio.run(work)
        except grpc.aio.AioRpcError as error:
            is_away = not source.db and error.code() is grpc.StatusCode.UNAVAILABLE
            hint = f" (is an audit service running at {source.target}?)" if is_away else ""
            err.print(f"{error.code().name}: {printable(error.details() or '')}{hint}", style="red", markup=False)
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_CANCELLED) from None


@asynccontextmanager
async def connect(source: Source) -> AsyncIterator[Client]:
    """A client of the service; for a file, of a read-only service inside this process.

    Raises:
        StoreRefused: the file cannot be read, its schema is not what this version knows, or it was changed meanwhile.
    """
    if source.db is None:
        channel, metadata = open_channel(source.target)
        async with channel:
            yield Client(channel, metadata)
        return
    configure_logging("error", "console")  # stdout is for the answer
    found = FoundDatabase(source.db)
    if found.unseen:
        say_unseen(found.unseen)
    with found.unchanged():
        async with _serve(found) as client:
            yield client


@asynccontextmanager
async def _serve(found: FoundDatabase) -> AsyncIterator[Client]:
    ledger = ReadableSqlite.read(found)
    try:
        with TemporaryDirectory(prefix="onrecord-") as folder:
            server = build_server(answering(error_interceptor(), ROLES))
            query_log = QueryLog(ledger, STATUSES)
            questions = QuestionServicer(ledger, query_log)
            questions_pb2_grpc.add_QuestionServiceServicer_to_server(questions, server)
            queries = QueriesServicer(ledger, query_log)  # type: ignore[abstract] # the rest needs a service
            administration_pb2_grpc.add_AdministrationServiceServicer_to_server(queries, server)
            address = f"unix:{folder}/ledger"
            server.add_insecure_port(address)
            await server.start()
            try:
                async with grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
                    yield Client(channel, ())
            finally:
                await server.stop(None)
    finally:
        await ledger.close()
