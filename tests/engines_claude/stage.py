"""A stage for Claude's engine: the runner as it is in production, the scripted program in place of Claude's own."""

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude import ClaudeAudit, ClaudeRunner
from gateway_svc.marks import new_mark
from gateway_svc.messages import Message, UserMessage
from gateway_svc.turns.account import Totals, TurnAccount
from gateway_svc.turns.events import TurnEvents
from gateway_svc.turns.turn import Turn
from recording.calls import Scope, Usage
from recording.logger import Row, safe_audit, safe_intend, safe_synced
from recording.rows import close_call, cost_row, decide, open_call
from tests.support import claude_cli
from tests.support.claude_cli import Line

LIST_PRICE = 100
"""Of every complete request, in millionths of a US dollar."""


def list_price(model: str, usage: Usage) -> int | None:
    return LIST_PRICE if usage.complete and model.startswith("claude-") else None


class Ledger:
    """Keeps rows in memory, as a logger."""

    def __init__(self) -> None:
        self.intents: list[audit_pb2.AuditRow] = []
        self.calls: list[audit_pb2.AuditRow] = []
        self.costs: list[audit_pb2.CostRow] = []

    def intend(self, row: audit_pb2.AuditRow) -> None:
        self.intents.append(row)

    def record(self, row: Row) -> None:
        if isinstance(row, audit_pb2.AuditRow):
            self.calls.append(row)
        elif isinstance(row, audit_pb2.CostRow):
            self.costs.append(row)

    async def synced(self) -> None: ...

    def audit(self) -> ClaudeAudit:
        return ClaudeAudit(
            open_call=open_call,
            decide=decide,
            close_call=close_call,
            cost_row=cost_row,
            intend=partial(safe_intend, self),
            synced=partial(safe_synced, self),
            record=partial(safe_audit, self),
        )


class Stage:
    """A folder with plays, a runner, and the turns that it ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.ledger = Ledger()
        self.history: list[Message] = []
        self.events: list[pb.TurnEvent] = []
        self.totals = Totals()
        self._plays = 0

    def play(self, lines: Sequence[Line], **options: Any) -> None:
        """Adds what the program does in its next run."""
        (self.folder / f"play-{self._plays}.json").write_text(json.dumps({"lines": list(lines), **options}))
        self._plays += 1

    def runner(self, *, audit: bool = True, command: str = "", **options: Any) -> ClaudeRunner:
        scripted = shlex.join([sys.executable, str(Path(claude_cli.__file__)), str(self.folder)])
        settings: dict[str, Any] = {"price": list_price, "max_steps": 50, "max_turn_seconds": 30.0} | options
        return ClaudeRunner(
            command or scripted,
            "",
            self.folder / "state",
            self.workspace,
            audit=self.ledger.audit() if audit else None,
            **settings,
        )

    def turn(self, text: str = "go", *, model: str = claude_cli.MODEL, system_prompt: str = "") -> Turn:
        """The next turn of the one session of this stage."""
        self.history.append(UserMessage(text))
        events = TurnEvents()
        account = TurnAccount(events.warn)
        self.events, self.totals = [], account.totals
        return Turn(
            scope=Scope("session-1", "claude", model, "turn-1"),
            system_prompt=system_prompt,
            history=self.history,
            append=self.history.append,
            events=events,
            account=account,
        )

    async def run(self, text: str = "go", *, runner: ClaudeRunner | None = None, **options: Any) -> str:
        """Runs a turn to its end and returns the name of its stop reason; its events are in `events`."""
        turn = self.turn(text, **options)
        listening = asyncio.create_task(self._listen(turn))
        try:
            return pb.StopReason.Name(await (runner or self.runner()).run(turn))
        finally:
            turn.events.close()
            await listening

    async def gather(self, turn: Turn) -> None:
        """Takes all the events of a turn that has ended."""
        turn.events.close()
        await self._listen(turn)

    async def _listen(self, turn: Turn) -> None:
        self.events = [event async for event in turn.events.stream()]

    async def start(self, turn: Turn, runner: ClaudeRunner) -> "asyncio.Task[pb.StopReason.ValueType]":
        """Starts a turn and returns once the program has been given its prompt."""
        task = asyncio.create_task(runner.run(turn))
        await self.until(lambda: any(line["type"] == "user" for line in self.stdin()))
        return task

    async def first_event(self, turn: Turn) -> pb.TurnEvent:
        """Waits for the first event of a running turn."""
        return await anext(turn.events.stream())

    async def until(self, condition: Any, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not happen"
            await asyncio.sleep(0.01)

    def journal(self, key: str) -> list[Any]:
        """What the program was given under this key, in all its runs."""
        path = self.folder / "journal.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        entries: list[Mapping[str, Any]] = [json.loads(line) for line in lines]
        return [entry[key] for entry in entries if key in entry]

    def stdin(self) -> list[Any]:
        return self.journal("stdin")

    def argv(self, run: int = -1) -> list[str]:
        argv: list[str] = self.journal("argv")[run]
        return argv

    def told(self, prompt: int = -1) -> list[str]:
        """The texts of a prompt."""
        prompts = [line for line in self.stdin() if line["type"] == "user"]
        return [block["text"] for block in prompts[prompt]["message"]["content"]]

    def of_kind(self, kind: str) -> list[Any]:
        """The events of one kind."""
        return [getattr(event, kind) for event in self.events if event.WhichOneof("event") == kind]

    def text(self) -> str:
        return "".join(delta.text for delta in self.of_kind("text_delta"))


def run_name() -> str:
    """What the marks of this process's programs begin with."""
    return new_mark().partition("-")[0]


def has_run_name(pid: int) -> bool:
    """Whether a process can be found by the next start, should this one be killed."""
    return f"={run_name()}-" in Path(f"/proc/{pid}/environ").read_text()


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
