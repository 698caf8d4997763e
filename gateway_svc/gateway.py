"""A gateway, ready to serve: its health, its start and its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway_svc.approvals import ApprovalServicer
from gateway_svc.conversations.protocol import Conversations
from gateway_svc.conversations.retention import Retention
from gateway_svc.conversations.session import SessionState
from gateway_svc.marks import Run
from gateway_svc.programs import NO_JAIL
from gateway_svc.servicer import GatewayServicer
from gateway_svc.settings import GatewaySettings
from gateway_svc.stopping.service import ControlServicer
from gateway_svc.stopping.stops import Record as RecordControl
from gateway_svc.stopping.stops import Stops
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.turn import Runner
from gateway_svc.watching.readiness import EngineCheck, why_not_writable
from gateway_svc.watching.tracing import Tracing

if TYPE_CHECKING:
    from gateway_svc.engines.claude import ClaudeAudit
    from gateway_svc.loop.agent import Agent
    from gateway_svc.tools.mcp.servers import McpServers
    from gateway_svc.turns.ledger_spending import LedgerSpending
    from recording.record import Record
    from service_kit.rules.file import Rules

TURNS_SHARE_OF_DRAIN = 0.5
"""How much of the drain time turns may take to end by themselves; the rest is for cancelling them and sending rows."""
RECOVER_SECONDS = 30.0
"""How often it is looked for turns of other gateways that are gone."""
JAILS_TOLD = {
    NO_JAIL: "commands run without a jail",
    "landlock": "commands are confined by Landlock, which holds less than bubblewrap",
}
"""What health says of how programs are confined, where that is less than the best."""


@dataclass(frozen=True, slots=True)
class Audited:
    """The parts of a deployment that records: its agents, and the one record that all its engines share."""

    agents: list["Agent"]
    record: "Record"
    claude_audit: "ClaudeAudit"
    """What the engine claude needs of the record."""
    record_session: Callable[[SessionState], None]
    """Puts a session's state on the record."""
    synced: Callable[[], Awaitable[object]]
    """Waits until what is on the record is as safe as the deployment promises."""
    record_control: RecordControl
    """Puts a stop, or the end of one, on the record."""
    ledger: "LedgerSpending | None"
    """Who is asked what labels have spent, where that is wished."""
    mcp: "McpServers | None" = None
    """The MCP servers, where there are any."""
    tool_names: frozenset[str] = frozenset()
    """The gateway's own tools that are offered."""
    rules: "Rules | None" = None
    """Rules on arguments, where there are any."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway, ready to serve."""

    settings: GatewaySettings
    conversations: Conversations
    turns: Turns
    servicer: GatewayServicer
    approvals: ApprovalServicer
    control: ControlServicer
    stops: Stops
    runners: Mapping[str, Runner]
    check: EngineCheck
    audited: Audited | None
    tracing: Tracing | None
    run: Run
    retention: Retention | None = None
    """Removes old sessions, where that is wished."""

    async def health(self) -> str:
        """Why no turn can be run here now as the deployment promises; empty when turns can be run."""
        trouble = await asyncio.to_thread(self.audited.record.trouble) if self.audited else ""
        folders = [self.settings.state_dir / "requests"]
        if self.settings.sessions is None:
            folders.insert(0, self.settings.state_dir / "sessions")
        trouble = trouble or await asyncio.to_thread(why_not_writable, *folders)
        return trouble or self.stops.trouble() or await self.conversations.trouble() or await self.check()

    async def detail(self) -> str:
        """What an operator should look at: stops, the record, the rules, the jail for commands."""
        record = await asyncio.to_thread(self.audited.record.detail) if self.audited else ""
        rules = self.audited.rules.trouble() if self.audited and self.audited.rules else ""
        jails = sorted({JAILS_TOLD.get(runner.jail, "") for runner in self.runners.values()})
        stops = self.stops.detail()  # no fault: who asks for health can still be answered, and Resume is
        return "; ".join(filter(None, [stops, record, rules and f"earlier rules are in force: {rules}", *jails]))

    def begin_drain(self) -> None:
        """Begins no turn, and ends the streams that would never end."""
        self.turns.begin_drain()
        self.approvals.begin_drain()

    async def drain(self) -> None:
        """Lets the turns end, and sends their rows."""
        seconds = self.settings.drain_seconds
        await self.turns.drain(seconds * TURNS_SHARE_OF_DRAIN)
        if self.audited:
            await self.audited.record.drain(seconds * (1 - TURNS_SHARE_OF_DRAIN))

    async def _recover(self) -> None:
        await self.turns.sessions.recover()
        while self.settings.sessions is not None:
            await asyncio.sleep(RECOVER_SECONDS)
            await self.turns.sessions.recover()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Runs what runs beside turns. At the end all is closed, in the opposite order: the record after the turns."""
        async with AsyncExitStack() as stack:
            stack.callback(self.run.close)
            stack.push_async_callback(self.conversations.aclose)
            self.conversations.start()
            await self.stops.begin()
            stack.callback(self.turns.close)
            if self.tracing:
                stack.push_async_callback(asyncio.to_thread, self.tracing.close)
            if self.audited:
                stack.push_async_callback(self.audited.record.aclose)
                self.audited.record.start()
                if self.audited.mcp:
                    stack.push_async_callback(self.audited.mcp.aclose)
                    await self.audited.mcp.start()
                if self.audited.ledger:
                    stack.push_async_callback(self.audited.ledger.aclose)
            for runner in self.runners.values():
                stack.push_async_callback(runner.aclose)
            # Those that the drain time was too short for: their rows must still reach the spool.
            stack.push_async_callback(self.turns.cancel_all)
            stack.callback(self.conversations.hurry)
            beside = [self._recover(), self.stops.follow(), *([self.retention.run()] if self.retention else [])]
            for task in map(asyncio.create_task, beside):
                stack.push_async_callback(asyncio.wait, [task])
                stack.callback(task.cancel)
            await stack.enter_async_context(self.check)
            yield
