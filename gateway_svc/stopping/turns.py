"""A turn as stops see it: what it is of, what runs of it, and how both are ended."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from onrecord.gateway.v1 import control_pb2 as pb

from gateway_svc.stopping.stop import stopped
from service_kit.producing.stop import Subject, holds_for, holds_for_tool

CANCELLED = "cancelled"
NONE_IN_FORCE: Callable[[], tuple[pb.Stop, ...]] = tuple


class CallStopped(Exception):
    """A stop has ended a tool call, or keeps it from beginning; its turn goes on."""

    def __init__(self, stop: pb.Stop, *, ran: bool) -> None:
        super().__init__(stop.id)
        self.stop = stop
        self.ran = ran


@dataclass(slots=True, eq=False)
class RunningCall:
    """A tool call between its decision and its end."""

    tool: str
    runs: bool = False
    """Whether its tool has begun: before, it waits for an answer or for the record."""
    task: "asyncio.Task[Any] | None" = None
    """What runs it alone; None where it can be ended with its turn only."""
    stop: pb.Stop | None = None
    ended: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class StoppableTurn:
    """One turn or shadow. All of it happens on the event loop: between a check and what follows it nothing can stop."""

    def __init__(
        self,
        subject: Subject | None = None,
        in_force: Callable[[], tuple[pb.Stop, ...]] = NONE_IN_FORCE,
        counts: "Counter[str] | None" = None,
    ) -> None:
        """`in_force` gives the stops in force; `counts` counts what they refuse and end (stops.COUNTED)."""
        self.subject = subject or Subject()
        self.stop: pb.Stop | None = None
        """What has ended it."""
        self.why_cancelled = CANCELLED
        """What the record says of its calls that are cancelled, and not by a stop."""
        self._in_force = in_force
        self._counts = Counter[str]() if counts is None else counts
        self._task: asyncio.Task[Any] | None = None
        self._ending: pb.Stop | None = None
        """What ends it when no call of it runs any more."""
        self._calls: set[RunningCall] = set()

    def begin(self, task: "asyncio.Task[Any]") -> None:
        """A task runs it."""
        self._task = task

    def end(self) -> None:
        """Nothing of it needs to be ended any more."""
        self._task = None

    def check(self, **changed: Any) -> None:
        """Looks whether it may go on, after what is `changed` of its subject.

        Raises:
            Stopped: it may not.
        """
        self.subject = replace(self.subject, **changed)
        if found := self._ending or next((one for one in self._in_force() if holds_for(one, self.subject)), None):
            self._counts["turn_refused"] += 1
            raise stopped(found)

    def become(self, **changed: Any) -> None:
        """Changes its subject while it runs; ends it if it may not go on."""
        self.subject = replace(self.subject, **changed)
        if found := next((one for one in self._in_force() if holds_for(one, self.subject)), None):
            self.halt(found)

    def stop_of(self, tool: str) -> pb.Stop | None:
        """The stop that a call of a tool must not run for; None if it may. Ask once for each call."""
        found = self._ending or next((one for one in self._in_force() if holds_for_tool(one, tool)), None)
        self._counts["call_refused"] += found is not None
        return found

    def halt(self, stop: pb.Stop) -> None:
        """Ends it now."""
        if self._task is not None and self.stop is None:
            self.stop = stop
            self._counts["turn_ended"] += 1
            self._task.cancel()

    def apply(self, stop: pb.Stop, *, let_calls_end: bool) -> "Iterator[asyncio.Future[Any]]":
        """Ends what a new stop is of. Yields what of it is then still to end; a turn's is its task."""
        if self._task is None:
            return
        if holds_for(stop, self.subject):
            task = self._task
            if let_calls_end and any(call.runs for call in self._calls):
                self._ending = stop
                for call in self._calls:
                    if not call.runs:
                        self._end_alone(call, stop)
            else:
                self.halt(stop)
            yield task
            return
        for call in [call for call in self._calls if holds_for_tool(stop, call.tool)]:
            if let_calls_end and call.runs:
                yield call.ended
            elif call.task is None and not call.runs:
                continue  # the program will ask whether it may run
            elif call.task is None:
                task = self._task
                self.halt(stop)
                yield task
                return
            else:
                self._end_alone(call, stop)
                yield call.ended

    @contextmanager
    def call(self, tool: str) -> Iterator[RunningCall]:
        """A call of a tool, from its decision to its end, in a task of its own. Set its `runs` when its tool begins.

        Raises:
            CallStopped: a stop ended it, and not its turn.
        """
        call = RunningCall(tool, task=asyncio.current_task())
        cancelling = call.task.cancelling() if call.task else 0
        self._calls.add(call)
        try:
            yield call
        except asyncio.CancelledError:
            # As asyncio.timeout() does: a cancellation that others asked for too is theirs.
            if call.stop is None or call.task is None or call.task.uncancel() > cancelling:
                raise
            raise CallStopped(call.stop, ran=call.runs) from None
        finally:
            self.end_call(call)

    def begin_call(self, tool: str, *, runs: bool) -> RunningCall:
        """A program has a call, which once it runs can be ended with the whole turn only: see end_call()."""
        call = RunningCall(tool, runs=runs)
        self._calls.add(call)
        return call

    def end_call(self, call: RunningCall) -> None:
        """A call has ended."""
        self._calls.discard(call)
        if not call.ended.done():
            call.ended.set_result(None)
        if self._ending and not any(other.runs for other in self._calls):
            self.halt(self._ending)

    def _end_alone(self, call: RunningCall, stop: pb.Stop) -> None:
        if call.task is not None and call.stop is None:
            call.stop = stop
            self._counts["call_ended" if call.runs else "call_refused"] += 1
            call.task.cancel()
