"""The ledger for applications that run tools themselves. Calls go through a spool on disk, as in a gateway.

So a recorded call survives the death of the application, nothing waits for the audit service, and what could not be
sent is sent after the next start with the same state directory.
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, get_args

from onrecord.client.access import Access
from onrecord.client.tool_call import ToolCall
from onrecord.common.v1 import common_pb2
from uuid_utils import uuid7

from recording import redact
from recording.calls import Scope
from recording.delivery.connection import open_target
from recording.record import Record, open_record
from recording.show import Arguments

T = TypeVar("T")

DEFAULT_TARGET = "127.0.0.1:50052"
DRAIN_SECONDS = 5.0


class _Ledger:
    def __init__(
        self,
        state_dir: Path | str,
        target: str = DEFAULT_TARGET,
        access: Access = Access(),  # noqa: B008 - it is frozen
        *,
        engine: str = "application",
        model: str = "",
        session_id: str | None = None,
        producer_name: str = "",
        mode: Literal["best_effort", "strict"] = "best_effort",
        arguments: Arguments = "shown",
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        """Opens nothing yet: `with` opens the spool and recovers what an earlier process left there.

        Args:
            state_dir: a persistent folder of the application's own. Processes may share one.
            target: the audit service, host:port.
            access: the credentials there; a token needs the role producer.
            engine: what makes the calls, as it appears in the rows.
            model: the model that makes the calls, if there is one.
            session_id: the session of calls that name no other; a new one when not given.
            producer_name: the application's name in the audit service's list of callers.
            mode: `strict` refuses a call whose intent cannot be written to disk.
            arguments: what the record keeps of arguments at most: `names` keeps no value, `none` only number and size.
            drain_seconds: how long close() waits for the audit service.

        Raises:
            ValueError, WrongFile: `access` cannot be used, or `arguments` is none of the three.
        """
        if arguments not in get_args(Arguments):
            raise ValueError(f"arguments: must be one of {', '.join(get_args(Arguments))}, not {arguments!r}")
        if access.token:
            redact.protect([access.token])
        self.session_id = session_id or str(uuid7())
        self._engine = engine
        self._model = model
        self._arguments: Arguments = arguments
        self._drain_seconds = drain_seconds
        files = access.files()
        token_file = Path(access.token_file) if access.token_file is not None else None
        service = open_target(target, files, token_file, producer_name)
        if token_file is None and access.token:
            service = replace(service, metadata=access.metadata)
        self._open = partial(open_record, Path(state_dir).expanduser(), service, mode=mode)
        self._record: Record | None = None
        self._is_closed = self._is_all_sent = False

    def _opened(self) -> Record:
        if self._record is None:
            raise RuntimeError("open the ledger with `with` first")
        return self._record

    def tool_call(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        session_id: str = "",
        turn_id: str = "",
        model: str = "",
    ) -> ToolCall:
        """A tool call, to be used with `with`.

        The record has the names, types and sizes of its arguments; recording.redact.show_fields() shows more.

        Raises:
            RuntimeError: the ledger was never opened.
        """
        source = common_pb2.SOURCE_CLIENT_LIBRARY
        scope = Scope(session_id or self.session_id, self._engine, model or self._model, turn_id, source=source)
        record = self._opened()
        return ToolCall(record.logger, scope, name, arguments or {}, self._arguments, record.args_key)

    async def _begin(self) -> None:
        self._record = self._open()
        self._is_closed = self._is_all_sent = False
        self._record.start()

    async def _end(self) -> bool:
        record = self._opened()
        try:
            return await record.drain(self._drain_seconds)
        finally:
            await record.aclose()


class AsyncLedger(_Ledger):
    """The ledger for asyncio, for `async with`. Inside it, `with ledger.tool_call(...)` never waits for the network."""

    async def close(self) -> bool:
        """Sends all rows; returns whether all reached the ledger. The rest is sent after the next start.

        `with` calls it at its end, if nobody has; it answers again what it answered first.
        """
        if not self._is_closed:
            self._opened()
            self._is_closed = True
            self._is_all_sent = await self._end()
        return self._is_all_sent

    async def __aenter__(self) -> Self:
        """Opens the ledger.

        Raises:
            OSError: state_dir cannot be used.
        """
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Ledger(_Ledger):
    """The ledger for programs without an event loop. It sends in a thread of its own, and any thread may use it."""

    def close(self) -> bool:
        """Sends all rows; returns whether all reached the ledger. The rest is sent after the next start.

        `with` calls it at its end, if nobody has; it answers again what it answered first.
        """
        if not self._is_closed:
            self._opened()
            self._is_closed = True
            try:
                self._is_all_sent = self._in_thread(self._end())
            finally:
                self._end_thread()
        return self._is_all_sent

    def __enter__(self) -> Self:
        """Opens the ledger.

        Raises:
            OSError: state_dir cannot be used.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="onrecord-ledger", daemon=True)
        self._thread.start()
        try:
            self._in_thread(self._begin())
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
