"""The ledger for applications that run tools themselves.

A Ledger only appends to files, below a folder of the application's own: it opens no connection. What it wrote survives
the death of the application, and is sent by another process: a gateway that has the same folder as its state directory,
or the program `onrecord-send`, which a Ledger with a target starts by need.
"""

import asyncio
import atexit
import time
import weakref
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from onrecord.client.access import Access
from onrecord.client.tool_call import ToolCall
from onrecord.common.v1 import common_pb2

from recording import redact
from recording.args_key import ArgsKey, open_args_key
from recording.calls import Scope
from recording.channel.token import watch_token
from recording.ids import uuid7
from recording.kept.folder import KEEP_BYTES
from recording.producing.courier import SenderProgram
from recording.producing.producer import Producer
from recording.show import Arguments

DRAIN_SECONDS = 5.0
EXIT_SECONDS = 1.0
"""How long the end of the program waits for the audit service, if it never closed the ledger."""

_FIRST_LOOK_SECONDS = 0.002
_MAX_LOOK_SECONDS = 0.05


class _Ledger:
    def __init__(
        self,
        state_dir: Path | str,
        target: str | None = None,
        access: Access = Access(),  # noqa: B008 - it is frozen
        *,
        engine: str = "application",
        model: str = "",
        session_id: str | None = None,
        producer_name: str = "",
        mode: Literal["best_effort", "strict"] = "best_effort",
        arguments: Arguments = "shown",
        drain_seconds: float = DRAIN_SECONDS,
        keep_acked_bytes: int = KEEP_BYTES,
        log_key: str = "",
        args_key_file: Path | str | None = None,
    ) -> None:
        """Opens nothing yet: open(), or `with`, does. It may be made anywhere, before a fork too.

        Args:
            state_dir: a persistent folder of the application's own. Processes share one.
            target: the audit service, host:port, for the program that sends: one for all processes of the folder, which
                the first that needs it starts. None: it only appends, and somebody else sends.
            access: the credentials there; a token needs the role producer.
            engine: what makes the calls, as it appears in the rows.
            model: the model that makes the calls, if there is one.
            session_id: the session of calls that name no other; a new one when not given.
            producer_name: the application's name in the audit service's list of callers.
            mode: `strict` refuses a call whose intent cannot be written to disk, or while the ledger is doubted.
            arguments: what the record keeps of arguments at most: `names` keeps no value, `none` only number and size.
            drain_seconds: how long close() waits for the audit service.
            keep_acked_bytes: how much of what is sent stays in state_dir, for a ledger that is restored from an old
                backup.
            log_key: the verifier key of the ledger's log; the first that it shows is trusted when not given.
            args_key_file: keys of the digests of arguments, shared with other producers; one of its own when not given.

        Raises:
            ValueError, WrongFile: `access` cannot be used, or `arguments` is none of the three.
            ImportError: there is a target, and grpcio is not installed.
        """
        if arguments not in get_args(Arguments):
            raise ValueError(f"arguments: must be one of {', '.join(get_args(Arguments))}, not {arguments!r}")
        if target is not None and find_spec("grpc") is None:
            raise ImportError(
                "sending needs grpcio: pip install grpcio, or the extra `grpc` of onrecord-client; or leave out the "
                "target and let a gateway, or onrecord-send from another environment, send what is in state_dir"
            )
        access.check()
        if access.token:
            redact.protect([access.token])
        if access.token_file is not None:
            redact.protect([watch_token(Path(access.token_file)).current()])
        self.session_id = session_id or str(uuid7())
        self._engine = engine
        self._model = model
        self._arguments: Arguments = arguments
        self._drain_seconds = drain_seconds
        self._state_dir = Path(state_dir).expanduser().absolute()
        self._args_key: ArgsKey | None = None
        self._args_key_file = None if args_key_file is None else Path(args_key_file).expanduser().absolute()
        root = self._state_dir / "spool"
        orders: dict[str, Any] | None = None
        if target is not None:
            orders = {"root": str(root), "target": target, "producer_name": producer_name}
            orders["token"] = access.token
            orders |= {"keep_acked_bytes": keep_acked_bytes, "witness_seconds": 60.0, "log_key": log_key}
            for name in ("ca", "cert", "key", "token_file"):
                path = getattr(access, name)
                orders[name] = None if path is None else str(Path(path).absolute())
        self._producer = Producer(root, SenderProgram(root, orders), mode, keep_acked_bytes)
        self._is_all_sent: bool | None = None

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
            RuntimeError: the ledger is not open.
        """
        self._check_open()
        source = common_pb2.SOURCE_CLIENT_LIBRARY
        scope = Scope(session_id or self.session_id, self._engine, model or self._model, turn_id, source=source)
        return ToolCall(self._producer, scope, name, arguments or {}, self._arguments, self._args_key)

    def _check_open(self) -> None:
        if not self._producer.is_open:
            told = "not open: open it with `with` or open()" if self._is_all_sent is None else "closed: open() it again"
            raise RuntimeError(f"the ledger is {told}")

    def _open(self) -> None:
        self._producer.open()
        self._args_key = open_args_key(self._state_dir, self._args_key_file)
        self._is_all_sent = None
        _open_ledgers.add(self)

    def _waits(self, seconds: float) -> Iterator[float]:
        """How long to wait before each look, until all is sent, the time is over, or nobody sends."""
        until = time.monotonic() + seconds
        pause = _FIRST_LOOK_SECONDS
        while not self._producer.is_sent() and time.monotonic() < until and self._producer.can_be_sent():
            yield min(pause, max(0.0, until - time.monotonic()))
            pause = min(1.5 * pause, _MAX_LOOK_SECONDS)

    def _close(self) -> bool:
        _open_ledgers.discard(self)
        self._is_all_sent = self._producer.is_sent()
        self._producer.close()
        return self._is_all_sent


class AsyncLedger(_Ledger):
    """The ledger for asyncio, for `async with`. It belongs to no event loop: use it in one after another."""

    async def open(self) -> Self:
        """Opens the ledger, which may be open already.

        Raises:
            OSError: state_dir cannot be used.
        """
        if not self._producer.is_open:
            await asyncio.to_thread(self._open)
        return self

    async def flush(self, timeout: float = DRAIN_SECONDS) -> bool:  # noqa: ASYNC109 - it ends without an exception
        """Waits up to timeout seconds; returns whether all that this process recorded has reached the ledger.

        Raises:
            RuntimeError: the ledger is not open.
        """
        self._check_open()
        for seconds in self._waits(timeout):
            await asyncio.sleep(seconds)
        return self._producer.is_sent()

    async def close(self) -> bool:
        """As flush(), and closes the ledger. What is not sent stays on disk, and is sent later.

        `with` calls it at its end, if nobody has; it answers again what it answered first.
        """
        if self._is_all_sent is None:
            try:
                await self.flush(self._drain_seconds)
            finally:
                self._close()
        return bool(self._is_all_sent)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Ledger(_Ledger):
    """The ledger for programs without an event loop. Any thread may use it, and any process that fork() makes."""

    def open(self) -> Self:
        """Opens the ledger, which may be open already.

        Raises:
            OSError: state_dir cannot be used.
        """
        if not self._producer.is_open:
            self._open()
        return self

    def flush(self, timeout: float = DRAIN_SECONDS) -> bool:
        """Waits up to timeout seconds; returns whether all that this process recorded has reached the ledger.

        Raises:
            RuntimeError: the ledger is not open.
        """
        self._check_open()
        for seconds in self._waits(timeout):
            time.sleep(seconds)
        return self._producer.is_sent()

    def close(self) -> bool:
        """As flush(), and closes the ledger. What is not sent stays on disk, and is sent later.

        `with` calls it at its end, if nobody has; it answers again what it answered first.
        """
        if self._is_all_sent is None:
            try:
                self.flush(self._drain_seconds)
            finally:
                self._close()
        return bool(self._is_all_sent)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_open_ledgers: "weakref.WeakSet[_Ledger]" = weakref.WeakSet()


@atexit.register
def _end() -> None:
    """The end of a program that closed nothing: what is on disk is sent anyway, and this waits only a moment for it."""
    until = time.monotonic() + EXIT_SECONDS
    for ledger in list(_open_ledgers):
        for seconds in ledger._waits(until - time.monotonic()):
            time.sleep(seconds)
        ledger._close()
