"""One process's work on a turn: read to its end and, whatever happens, ended, reported and recorded."""

import asyncio
from contextlib import aclosing
from enum import Enum, auto

import structlog
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude import failures
from gateway_svc.engines.claude.bill import Bill, Price
from gateway_svc.engines.claude.calls import Calls
from gateway_svc.engines.claude.conversation import Conversation
from gateway_svc.engines.claude.hold import answer
from gateway_svc.engines.claude.memory import Known, Memory
from gateway_svc.engines.claude.outcomes import CANCELLED as CANCELLED_CALL
from gateway_svc.engines.claude.outcomes import INTERRUPTED
from gateway_svc.engines.claude.process import ClaudeProcess
from gateway_svc.engines.claude.record import ClaudeAudit
from gateway_svc.engines.claude.stream import Stream
from gateway_svc.errors import (
    CANCELLED,
    TURN_TIME_LIMIT,
    AnswerTooLarge,
    EngineBrokeOff,
    EngineError,
    EngineProtocolError,
    failure_of,
)
from gateway_svc.turns.turn import Turn
from recording.calls import Failure
from service_kit.bounds import Exceeded

LINGER_SECONDS = 5.0
"""The longest silence after its answer before the program is ended."""
LAST_LINES_SECONDS = 5.0

log = structlog.get_logger(__name__)


class _Ended(Enum):
    BY_ITSELF = auto()
    BY_TIME = auto()
    BY_CANCEL = auto()


class Run:
    """The state of one run, from its process to the turn."""

    def __init__(self, turn: Turn, memory: Memory, price: Price, audit: ClaudeAudit | None) -> None:
        self._turn = turn
        self._memory = memory
        self._bill = Bill(turn, failures.ENGINE, price, audit)
        self._calls = Calls(turn, turn.scope, audit)
        self._conversation = Conversation(turn)
        self._stream = Stream(turn, self._calls, self._bill, self._conversation, self._remember)
        self._session_id = ""

    def refuse(self, error: Exception) -> None:
        """The process could not be started."""
        self._bill.fail(failure_of(error))

    async def drive(self, process: ClaudeProcess, *, resumed: bool, seconds: float) -> pb.StopReason.ValueType:
        """Reads the program's output to its end, for at most `seconds`. Cancelling it ends the program.

        Raises:
            SessionLost: the program could not continue its session, and has done nothing.
            EngineError: it failed.
        """
        reading = asyncio.create_task(self._read(process))
        ended = await _wait(reading, seconds)
        self._calls.stopping = ended is not _Ended.BY_ITSELF
        if await _undisturbed(asyncio.create_task(self._end(process, reading))):
            ended = _Ended.BY_CANCEL
        reason, failed = pb.STOP_REASON_UNSPECIFIED, None
        if ended is _Ended.BY_ITSELF:
            try:
                reason = self._stop_reason(process, reading, resumed=resumed)
            except EngineError as error:
                failed = error
        left = INTERRUPTED if ended is _Ended.BY_ITSELF else CANCELLED_CALL
        if await _undisturbed(asyncio.create_task(self._calls.abandon(left))):
            ended = _Ended.BY_CANCEL
        if ended is _Ended.BY_ITSELF:
            if failed is None:
                await self._conclude(reason)
                return reason
            await self._cut(INTERRUPTED.text, failure_of(failed), failed=True)
            raise failed
        if ended is _Ended.BY_TIME:
            await self._cut(CANCELLED_CALL.text, TURN_TIME_LIMIT)
            return pb.STOP_REASON_MAX_TURN_SECONDS
        await self._cut(CANCELLED_CALL.text, CANCELLED)
        raise asyncio.CancelledError

    async def _end(self, process: ClaudeProcess, reading: "asyncio.Task[None]") -> None:
        """Ends the program, whose last lines may report its cost. A stop does not wait for that."""
        await process.end(interrupt=not reading.done(), at_once=self._turn.stops.stop is not None)
        await asyncio.wait([reading], timeout=LAST_LINES_SECONDS)
        reading.cancel()
        await process.close()

    async def _read(self, process: ClaudeProcess) -> None:
        async with aclosing(process.lines()) as lines:
            while True:
                try:
                    async with asyncio.timeout(LINGER_SECONDS if self._stream.answered else None):
                        line = await anext(lines)
                except (StopAsyncIteration, TimeoutError):
                    return
                try:
                    if told := await answer(line, self._calls):
                        process.send(told)
                        await process.until_heard()
                        continue
                    self._stream.take(line)
                except ValueError as error:
                    self._stream.say("claude.line_malformed", error=str(error))
                except Exceeded as over:
                    model, name = self._turn.scope.model, over.bound.name
                    raise AnswerTooLarge(failures.ENGINE, model, f"sent {over}", name) from None
                await self._conversation.keep()
                if self._stream.answered:
                    process.close_input()
                await self._turn.events.writable()

    def _stop_reason(
        self, process: ClaudeProcess, reading: "asyncio.Task[None]", *, resumed: bool
    ) -> pb.StopReason.ValueType:
        if not reading.cancelled():
            reading.result()
        model, result = self._turn.scope.model, self._stream.result
        if resumed and not self._stream.begun:
            said = failures.reported_text(result) if result else process.stderr_tail
            if failures.LOST_SESSION in said or result:
                raise failures.SessionLost
        if result is None or not self._stream.idle:
            if process.exit_code == 0 and self._stream.end in failures.STOP_REASONS and not self._calls.open:
                # The whole answer has come; only its cost is missing.
                return failures.ended_by(model, self._stream.end)
            raise failures.died(
                model, process.exit_code, process.stderr_tail, process.skipped_lines, begun=self._stream.begun
            )
        return self._said_something(failures.stop_reason(model, result, self._stream.failure_code, self._stream.end))

    def _said_something(self, reason: pb.StopReason.ValueType) -> pb.StopReason.ValueType:
        """Refuses an empty answer: no text, call, thinking or token."""
        if reason == pb.STOP_REASON_COMPLETED and self._conversation.empty and not self._bill.has_requests:
            raise EngineProtocolError(failures.ENGINE, self._turn.scope.model, "gave an empty answer")
        return reason

    async def _conclude(self, reason: pb.StopReason.ValueType) -> None:
        self._stream.finish()
        if not self._stream.idle:
            self._bill.cut(Failure(EngineBrokeOff.code))
        cut = reason in (pb.STOP_REASON_MAX_STEPS, pb.STOP_REASON_MAX_COST)
        self._conversation.append(INTERRUPTED.text, answered=not cut)
        await self._keep()

    async def _cut(self, missing: str, failure: Failure, *, failed: bool = False) -> None:
        """Reports and records the work of a run that has no answer."""
        self._stream.finish()
        self._conversation.append(missing)
        if not (self._stream.result and self._stream.idle):
            self._bill.cut(failure)
        elif failed:
            self._bill.fail(failure)
        await self._keep()

    async def _keep(self) -> None:
        """Keeps the conversation, and the program's id. If the turn is cancelled meanwhile, it ends so afterwards."""
        cancelled = await _undisturbed(asyncio.create_task(self._conversation.keep()))
        self._remember(self._session_id)
        if cancelled:
            raise asyncio.CancelledError

    def _remember(self, session_id: str) -> None:
        """Saves the program's id, so that the next turn continues it even if the gateway dies in this one."""
        self._session_id = session_id
        if session_id:
            self._memory.write(self._turn.scope.session_id, Known(session_id, len(self._turn.history)))


async def _wait(reading: "asyncio.Task[None]", seconds: float) -> _Ended:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait([reading])
    except TimeoutError:
        return _Ended.BY_TIME
    except asyncio.CancelledError:
        return _Ended.BY_CANCEL
    return _Ended.BY_ITSELF


async def _undisturbed(task: "asyncio.Task[None]") -> bool:
    """Waits for task, however often the wait is cancelled; returns whether it was cancelled."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    return cancelled
