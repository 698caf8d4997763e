"""The commands run and chat: a turn as it runs, and ^C, which cancels it and says what it cost."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, NamedTuple

import grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.terminal.calling import (
    DEFAULT_TARGET,
    EXIT_CANCELLED,
    EXIT_FAILED,
    GRPC_TIMEOUT_SECONDS,
    Json,
    Target,
    call_gateway,
    choice,
    err,
    named_session,
    print_json,
    split_label,
)
from gateway_svc.terminal.turn_printer import TurnPrinter
from recording.channel.token import Metadata
from service_kit import client
from service_kit.printable import printable
from service_kit.terminal.command import Argument, BadParameter, Exit, Filled, Option, Options
from service_kit.terminal.failures import Failed, as_typed
from service_kit.terminal.ids import LAST
from service_kit.unanswered import is_cut

TITLE = "title"
"""The label that a session's title is."""
STDIN = "-"
WAIT_SECONDS = 2.0
"""After so long without its begin it is looked what a turn waits for."""
AGAIN_SECONDS, PATIENT_SECONDS = 1.0, 8.0
"""After so long more it is told: that another turn runs, or that nobody knows."""
_LEAVE = ("/exit", "/quit")
_COMMAND = re.compile(r"/[a-z]+")
_KEYS = "^C cancels a turn, ^D or /exit ends"


class TurnOptions(Options):
    """What a turn runs with, and where."""

    engine: Annotated[str, Filled(help="The engine; the default when not given.")] = ""
    model: Annotated[str, Filled(help="The model; the engine's default when not given.")] = ""
    session: Annotated[
        str, Filled(help="The session to continue: its id, the first or last characters of it, or @last.")
    ] = ""
    go_on: Annotated[bool, Option("--continue", help="Continue the newest session, as --session @last does.")] = False
    title: Annotated[str, Filled(help="A title for the new session, kept as its label `title`.")] = ""
    label: Annotated[list[str] | None, Option(help="key=value, for attribution; may be repeated.")] = None
    max_cost: Annotated[float | None, Option(min=0, help="US dollars that each turn may cost.")] = None
    fallback: Annotated[str, Filled(help="ENGINE[:MODEL] to use when the engine is down or rate-limited.")] = ""
    shadow: Annotated[list[str] | None, Filled(help="ENGINE[:MODEL] to compare with; may be repeated.")] = None
    as_json: Json = False
    target: Target = DEFAULT_TARGET

    def request(self) -> pb.RunTurnRequest:
        """A request without its input. Asks the gateway where the session is named by a part of its id.

        Raises:
            BadParameter: options exclude each other.
        """
        if self.go_on and self.session:
            raise BadParameter("either --continue or --session", param_hint="--continue")
        session = LAST if self.go_on else self.session
        labels = dict(split_label(text) for text in self.label or [])
        if self.title:
            labels[TITLE] = self.title
        settings = pb.SessionSettings(
            labels=labels,
            fallback=choice(self.fallback) if self.fallback else None,
            shadows=map(choice, self.shadow or []),
        )
        if session and settings.ListFields():
            option = "--continue" if self.go_on else "--session"
            raise BadParameter("--title, --label, --fallback and --shadow are for a new session", param_hint=option)
        max_cost_micros = None if self.max_cost is None else round(self.max_cost * 1_000_000)
        request = pb.RunTurnRequest(engine=self.engine, model=self.model, max_cost_micros=max_cost_micros)
        if session:
            request.session_id = named_session(self.target, session, "--continue" if self.go_on else "--session")
        else:
            request.new_session.CopyFrom(settings)
        return request


def run(
    turn: TurnOptions, prompt: Annotated[str, Argument(help="The task; - or nothing reads it from stdin.")] = STDIN
) -> None:
    """Give an agent a task and watch it work."""
    text = read_prompt(prompt)
    request = turn.request()
    request.input = text
    ended = run_turn(turn.target, request, print_json if turn.as_json else None)
    if ended.is_cancelled_elsewhere:
        raise Failed(_cancelled_elsewhere(ended.session_id), EXIT_FAILED)
    raise Exit({pb.STOP_REASON_FAILED: EXIT_FAILED, pb.STOP_REASON_CANCELLED: EXIT_CANCELLED}.get(ended.reason, 0))


def read_prompt(prompt: str) -> str:
    """The task: what was given, or what stdin holds.

    Raises:
        BadParameter: there is none.
    """
    if prompt != STDIN:
        if not prompt.strip():
            raise BadParameter("is empty: say what the agent should do", param_hint="PROMPT")
        return prompt
    if sys.stdin is None or sys.stdin.isatty():
        raise BadParameter("is missing: give a task in quotes, or pipe one in", param_hint="PROMPT")
    text = sys.stdin.buffer.read().decode(errors="replace")
    if not text.strip():
        raise BadParameter("is empty: nothing came on stdin", param_hint="PROMPT")
    return text


def chat(turn: TurnOptions) -> None:
    """Talk with an agent, turn after turn, in one session; end with ^D or /exit."""
    asked = sys.stdin.isatty() and not turn.as_json
    if asked:
        with suppress(ImportError):
            import readline  # noqa: F401 - input() edits lines with it
        err.print(_KEYS, style="dim")
    request = turn.request()
    for line in _lines(asked=asked):
        request.input = line
        ended = run_turn(turn.target, request, print_json if turn.as_json else None)
        if ended.is_cancelled_elsewhere:
            err.print(_cancelled_elsewhere(ended.session_id), style="yellow")
        if not asked and (ended.reason == pb.STOP_REASON_FAILED or ended.is_cancelled_elsewhere):
            raise Exit(EXIT_FAILED)
        if ended.session_id:
            request.session_id = ended.session_id


def _lines(*, asked: bool) -> Iterator[str]:
    while True:
        try:
            line = input("> " if asked else "").strip()
        except EOFError:
            if asked:
                err.print("")
            return
        except KeyboardInterrupt:
            err.print("")
            continue
        if line in _LEAVE:
            return
        if asked and _COMMAND.fullmatch(line):  # a request costs something, and this was meant for us
            err.print(f"there is no {line}: {_KEYS}", style="yellow")
        elif line:
            yield line


class Ended(NamedTuple):
    """How a turn ended."""

    reason: pb.StopReason.ValueType
    session_id: str
    is_cancelled_elsewhere: bool
    """It was cancelled, and no ^C was typed."""


def run_turn(target: str, request: pb.RunTurnRequest, show: Callable[[pb.TurnEvent], None] | None = None) -> Ended:
    """Runs a turn, shown by show or as people see it.

    The first ^C cancels the turn, whose end says what it cost; the second leaves without waiting for that.

    Raises:
        Failed: a call failed, or the gateway went away.
        Exit: it was left by ^C.
    """
    printer = TurnPrinter()

    async def stream(stub: Any, metadata: Metadata) -> Ended:
        reason: pb.StopReason.ValueType = pb.STOP_REASON_UNSPECIFIED
        accepted, is_ours = pb.TurnAccepted(), False

        async def cancel() -> None:
            nonlocal is_ours
            is_ours = True
            wanted = pb.CancelTurnRequest(turn_id=accepted.turn_id)
            await stub.CancelTurn(wanted, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)

        async def say_what_it_waits_for() -> None:
            await asyncio.sleep(WAIT_SECONDS)
            status: common_pb2.SessionStatus.ValueType = common_pb2.SESSION_STATUS_UNSPECIFIED
            with suppress(grpc.aio.AioRpcError):
                asked = pb.GetSessionRequest(session_id=accepted.session_id)
                answer = await stub.GetSession(asked, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)
                status = answer.session.status
            is_busy = status == common_pb2.SESSION_STATUS_RUNNING
            await asyncio.sleep(AGAIN_SECONDS if is_busy else PATIENT_SECONDS)  # it may begin just now
            printer.waiting(accepted.session_id, is_busy=is_busy)

        waiting: asyncio.Task[None] | None = None
        async with _interrupts(lambda: cancel() if accepted.turn_id else None, printer):
            try:
                with printer.status():
                    async for event in stub.RunTurn(request, metadata=metadata):
                        if event.HasField("turn_accepted"):
                            accepted.CopyFrom(event.turn_accepted)
                            waiting = waiting or asyncio.create_task(say_what_it_waits_for())
                        elif waiting and not event.HasField("heartbeat"):
                            waiting.cancel()
                        (show or printer.show)(event)
                        reason = event.turn_finished.stop_reason
            except grpc.aio.AioRpcError as error:
                if accepted.session_id and is_cut(error):
                    later = f"once it is back, {_on_record(accepted.session_id)}"
                    why = f"the gateway at {target} went away during the turn; {later}"
                    raise Failed(why, EXIT_FAILED, error) from None
                raise
            finally:
                if waiting:
                    waiting.cancel()
        return Ended(reason, accepted.session_id, reason == pb.STOP_REASON_CANCELLED and not is_ours)

    return call_gateway(target, stream)


def _cancelled_elsewhere(session_id: str) -> str:
    """What is said of a turn that was cancelled, and not by ^C."""
    why = client.why_ended() if client.why_ended else ""
    if why:
        return f"the turn was not cancelled here: {why}; once all runs again, {_on_record(session_id)}"
    why = "its gateway was stopped, or another command cancelled it"
    return f"the turn was not cancelled here: {why}; {_on_record(session_id)}"


def _on_record(session_id: str) -> str:
    return as_typed(f"what ran is on record: `audit-svc show {printable(session_id)}`")


@asynccontextmanager
async def _interrupts(cancel: Callable[[], Any], printer: TurnPrinter) -> AsyncIterator[None]:
    """While it lasts, ^C calls cancel; once more, or where cancel returns None or fails, it ends the task."""
    loop, task, cancelling = asyncio.get_running_loop(), asyncio.current_task(), list[asyncio.Task[None]]()
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        if task:
            task.cancel()

    def failed(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and isinstance(ended.exception(), grpc.RpcError):
            leave()

    def interrupted() -> None:
        wanted = None if cancelling else cancel()
        if wanted is None:
            leave()
            return
        printer.cancelling()
        cancelling.append(loop.create_task(wanted))
        cancelling[0].add_done_callback(failed)

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    except asyncio.CancelledError:
        if left:
            raise KeyboardInterrupt from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)
