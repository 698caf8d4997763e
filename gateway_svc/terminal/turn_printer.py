"""A turn as people see it."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.terminal.calling import err, money
from recording.durations import known_duration_ms
from service_kit.errors import code_name
from service_kit.printable import PlainText, printable
from service_kit.terminal.failures import as_typed
from service_kit.terminal.outcomes import outcome_text
from service_kit.terminal.printing import Sentence, Text, clear_status, counted, duration, progress, terminal_width

_MODEL = "the model"
"""What is under way where no tool is."""


class TurnPrinter:
    """Shows a turn as it runs: the answer on stdout, everything else on stderr."""

    def __init__(self) -> None:
        self._in_text = False
        self._under_way: dict[str, tuple[str, float]] = {}
        """What runs by the ids of tool calls, "" for the model: its name, and since when."""
        self._session_id = ""
        self._text = PlainText()

    @contextmanager
    def status(self) -> Iterator[None]:
        """While it lasts, a terminal shows what is under way, with its seconds."""
        if not err.is_terminal:
            yield
            return
        with progress(err, lambda seconds, _: self._status(seconds)) as tell:

            async def tick() -> None:
                while True:
                    await asyncio.sleep(1)
                    if self._under_way and not self._in_text:
                        tell(int(time.monotonic() - min(since for _, since in self._under_way.values())), 0)

            ticking = asyncio.create_task(tick())
            try:
                yield
            finally:
                ticking.cancel()

    def waiting(self, session_id: str, *, is_busy: bool) -> None:
        """Says what a turn waits for that has not begun. is_busy: whether another turn of its session runs."""
        why = (
            f"another turn of session {session_id} runs"
            if is_busy
            else "the gateway begins it later, as when all of its places are taken"
        )
        err.print(printable(f"waiting: {why}; ^C gives it up"), style="yellow")

    def cancelling(self) -> None:
        """Says that ^C was heard, and what runs."""
        self._end_text()
        names = ", ".join(dict.fromkeys(name for name, _ in self._under_way.values()))
        err.take_line()
        err.print(printable(f"cancelling{f' {names}' if names else ''}; ^C again leaves at once"), style="yellow")

    def _status(self, seconds: int) -> str:
        names = ", ".join(dict.fromkeys(name for name, _ in self._under_way.values()))
        return str(Text(printable(f"  {names} · {seconds} s")).cut((terminal_width(err.file) or 80) - 1))

    def _follow(self, event: pb.TurnEvent) -> None:
        """Notes what is under way from an event on."""
        match event.WhichOneof("event"):
            case "turn_started" | "engine_changed":
                self._under_way = {"": (_MODEL, time.monotonic())}
            case "tool_call_started":
                self._under_way.pop("", None)
                self._under_way[event.tool_call_started.tool_call_id] = (
                    event.tool_call_started.tool_name,
                    time.monotonic(),
                )
            case "tool_call_finished":
                self._under_way.pop(event.tool_call_finished.tool_call_id, None)
                if not self._under_way:
                    self._under_way[""] = (_MODEL, time.monotonic())
            case "turn_finished":
                self._under_way.clear()

    def show(self, event: pb.TurnEvent) -> None:
        """Shows an event."""
        self._follow(event)
        match event.WhichOneof("event"):
            case "turn_accepted":
                self._session_id = event.turn_accepted.session_id
            case "turn_started":
                started = event.turn_started
                err.print(printable(f"session {self._session_id} · {started.engine} · {started.model}"), style="dim")
            case "text_delta":
                self._in_text = True
                clear_status()
                sys.stdout.write(self._text.feed(event.text_delta.text))
                sys.stdout.flush()
            case "tool_call_started":
                self._end_text()
                call = event.tool_call_started
                err.print(printable(f"▸ {call.tool_name} {call.args_summary}"), style="cyan", cut=True)
                if call.HasField("pending"):
                    waiting = f"  waiting for an answer (id {call.tool_call_id})"
                    err.print(printable(waiting), style="yellow")
            case "tool_call_finished":
                self._end_text()
                self._show_finished(event.tool_call_finished)
            case "rate_limit_changed":
                if event.rate_limit_changed.status > pb.RATE_LIMIT_STATUS_ALLOWED:
                    self._end_text()
                    self._show_limit(event.rate_limit_changed)
            case "warning":
                self._end_text()
                err.print(printable(f"  {event.warning.message}"), style="yellow")
            case "engine_changed":
                self._end_text()
                changed = event.engine_changed
                line = f"  {changed.engine} · {changed.model} continues: {changed.reason}"
                err.print(printable(line), style="yellow")
            case "turn_finished":
                self._end_text()
                finished = event.turn_finished
                if finished.HasField("error"):
                    err.print(printable(as_typed(finished.error.message or code_name(finished.error))), style="red")
                reason = pb.StopReason.Name(finished.stop_reason).removeprefix("STOP_REASON_").lower()
                usage = finished.usage
                err.print(
                    f"{reason} in {duration(finished.duration_ms)} · {counted(usage.requests, 'model request')} · "
                    f"{counted(finished.tool_calls, 'tool call')}\n"
                    f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out · {money(usage)}",
                    style="dim",
                )

    def _show_finished(self, finished: pb.ToolCallFinished) -> None:
        outcome = common_pb2.Outcome.Name(finished.outcome).removeprefix("OUTCOME_").lower()
        exit_code = finished.exit_code if finished.HasField("exit_code") else None
        http_status = finished.http_status if finished.HasField("http_status") else None
        line = Sentence(printable(f"  {finished.tool_name}: "), beneath=4).append(
            outcome_text(outcome, exit_code, http_status)
        )
        line.append(f" · {duration(known_duration_ms(finished.outcome, finished.duration_ms))}", style="dim")
        more = f" · {printable(as_typed(finished.error))}" if finished.error not in ("", outcome) else ""
        err.print(line.append(more, style="red"))

    def _show_limit(self, limit: pb.RateLimitChanged) -> None:
        near = "is near" if limit.status == pb.RATE_LIMIT_STATUS_NEAR else "is reached"
        used = f" · {limit.utilization:.0%} used" if limit.HasField("utilization") else ""
        err.print(printable(f"  the limit {limit.window} {near}{used}"), style="yellow")

    def _end_text(self) -> None:
        if self._in_text:
            self._text.end()
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._in_text = False
