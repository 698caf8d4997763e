"""The ledger for applications that run tools themselves: their calls go the way of a gateway's, over a spool on disk.

So a call that is on the record survives the death of the application, nobody waits for the audit service, and what
could not be sent is sent after the next start with the same state directory.
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from onrecord.client.access import Access
from onrecord.client.tool_call import ToolCall
from uuid_utils import uuid7

from recording import redact
from recording.calls import Scope
from recording.delivery.connection import open_target
from recording.record import Record, open_record

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
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        """Says where calls go. The spool is opened, and what an earlier process left there recovered, by `with`.

        Args:
            state_dir: a folder of the application's own, which outlives it. Processes may share one.
            target: the audit service, host:port.
            access: how to come in there; a token needs the role producer.
            engine: what makes the calls, as the rows say it.
            model: the model that makes the calls, where there is one.
            session_id: the session that calls belong to, where they name no other; a new one when not given.
            producer_name: as the audit service's list of callers has it.
            mode: `strict` refuses a call whose intent cannot be put on disk.
            drain_seconds: how long close() waits for the audit service.

        Raises:
            ValueError, WrongFile: `access` cannot be used.
        """
        if access.token:
            redact.protect([access.token])
        self.session_id = session_id or str(uuid7())
        self._engine = engine
        self._model = model
        self._drain_seconds = drain_seconds
        files = access.files()
        token_file = Path(access.token_file) if access.token_file is not None else None
        service = open_target(target, files, token_file, producer_name)
        if token_file is None and access.token:
            service = replace(service, metadata=access.metadata)
        self._open = partial(open_record, Path(state_dir).expanduser(), service, mode=mode)
        self._record: Record | None = None

    def _opened(self) -> Record:
        if self._record is None:
            raise RuntimeError("open the ledger by `with` first")
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
        """A tool call, for `with`.

        Of its arguments the record has names, types and sizes. recording.redact.show_fields() lets more be shown.

        Raises:
            RuntimeError: the ledger was never opened.
        """
        scope = Scope(session_id or self.session_id, self._engine, model or self._model, turn_id)
        return ToolCall(self._opened().logger, scope, name, arguments or {})

    async def _begin(self) -> None:
        self._record = self._open()
        self._record.start()

    async def _end(self) -> bool:
        record = self._opened()
        try:
            return await record.drain(self._drain_seconds)
        finally:
            await record.aclose()


class AsyncLedger(_Ledger):
    """The ledger for asyncio: `async with`, inside of which `with ledger.tool_call(...)` waits for nothing."""

    async def close(self) -> bool:
        """Sends what is there; says whether all of it is in the ledger. What is not is sent after the next start."""
        return await self._end()

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
    """The ledger for programs without an event loop: it sends in a thread of its own. Calls may come from any."""

    def close(self) -> bool:
        """See AsyncLedger.close."""
        try:
            return self._in_thread(self._end())
        finally:
            self._end_thread()

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
