"""Shadows: other engines that run a turn again after it has ended, for comparison.

They start after the turn, since they get its results. Nobody waits for them, and the gateway's shutdown cancels them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import Busy, EngineError, NotFound, Stopped
from gateway_svc.messages import Message
from gateway_svc.stopping.stops import Stops
from gateway_svc.stopping.turns import StoppableTurn
from gateway_svc.turns.account import Totals, TurnAccount
from gateway_svc.turns.events import SilentEvents
from gateway_svc.turns.sessions import Sessions
from gateway_svc.turns.turn import Runner, ShadowRunner, Turn

MAX_RUNNING = 8
"""How many shadows run at once; those of a turn that ends while so many run are skipped."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Shadow:
    """What shadows need from a turn."""

    turn: Turn
    """The turn that has ended."""
    begin: int
    """Where it begins in its history: the user's input."""
    max_cost_micros: int | None
    """The turn's budget, which each shadow has too; None: it has none."""
    done: Sequence[Message] = field(init=False)
    """The messages that the turn added."""
    told: Sequence[Message] = field(init=False)
    """The conversation up to the user's input."""

    def __post_init__(self) -> None:
        # copies, since the session's next turn adds to the history
        self.told = self.turn.history[: self.begin + 1]
        self.done = self.turn.history[self.begin + 1 :]


class Shadows:
    """Runs shadows, and adds their cost to their sessions."""

    def __init__(self, sessions: Sessions, runners: Mapping[str, Runner], stops: Stops) -> None:
        self._sessions = sessions
        self._stops = stops
        self._runners = runners
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: set[asyncio.Task[None]] = set()
        """Tasks that only have to save their cost."""
        self._closed = False

    def start(self, shadow: Shadow, choices: Sequence[pb.EngineChoice]) -> None:
        """Starts a shadow of the turn on each of the engines, with their models."""
        if self._closed:
            return
        for choice in choices:
            runner = self._runners.get(choice.engine)
            if not isinstance(runner, ShadowRunner):
                log.warning("shadow.engine_missing", engine=choice.engine)
            elif len(self._tasks) >= MAX_RUNNING:
                log.warning("shadow.left_out", engine=choice.engine, running=len(self._tasks))
            else:
                stops = self._stops.turn(replace(shadow.turn.stops.subject, engine=choice.engine))
                try:
                    stops.check()
                except Stopped as error:
                    log.warning("shadow.stopped", engine=choice.engine, **error.metadata)
                    continue
                turn = _shadow_turn(shadow, choice.engine, choice.model or runner.default_model, stops)
                task = asyncio.create_task(self._run(runner.in_shadow(shadow.done), turn))
                self._stops.watch(stops, task)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                task.add_done_callback(self._ended.discard)

    def close(self) -> None:
        """Starts no more."""
        self._closed = True

    async def cancel_all(self) -> None:
        """Cancels all shadows and waits for their end."""
        tasks = list(self._tasks)
        for task in self._tasks - self._ended:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, runner: Runner, turn: Turn) -> None:
        totals, error_type = turn.account.totals, ""
        try:
            await runner.run(turn)
        except EngineError as error:
            error_type = type(error).__name__
        except Exception:  # nobody awaits a shadow, so a defect in it must be logged
            error_type = "defect"
            log.exception("shadow.failed", engine=turn.scope.engine)
        finally:
            turn.stops.end()
            if (task := asyncio.current_task()) is not None:
                self._ended.add(task)
            log.info("shadow.finished", engine=turn.scope.engine, requests=totals.requests, error=error_type)
            await self._save(turn.scope.session_id, totals)

    async def _save(self, session_id: str, totals: Totals) -> None:
        with suppress(NotFound, Busy):  # gone, or run by another gateway: the ledger has its rows
            async with self._sessions.hold(session_id) as session:
                session.state.shadow_totals.add(totals)
                await session.save()


def _shadow_turn(shadow: Shadow, engine: str, model: str, stops: StoppableTurn) -> Turn:
    history, events, account = list(shadow.told), SilentEvents(), shadow.turn.account
    return Turn(
        scope=replace(shadow.turn.scope, engine=engine, model=model),
        system_prompt=shadow.turn.system_prompt,
        history=history,
        append=history.append,
        events=events,
        account=TurnAccount(events.warn, account.shared, max_micros=shadow.max_cost_micros, observer=account.observer),
        max_steps=shadow.turn.max_steps,
        stops=stops,
    )
