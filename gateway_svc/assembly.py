"""The part of a gateway that has an audit trail: the agents over HTTP engines, their tools, and the record of both.

It is imported only where there is something to record, so that a deployment without it does not load any of it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gateway_svc.engines.claude import ClaudeAudit
from gateway_svc.engines.claude.shown import SHOWN_OF_CLAUDE
from gateway_svc.engines.kinds import EngineKind, engine_kinds
from gateway_svc.engines.pricing import context_tokens, cost_micros
from gateway_svc.errors import SettingsError
from gateway_svc.loop.agent import Agent, Limits
from gateway_svc.loop.answers import Answers
from gateway_svc.settings import GatewaySettings, Policy
from gateway_svc.tools import kinds
from gateway_svc.tools.files import Files
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.turns.ledger_spending import LedgerSpending
from gateway_svc.turns.sessions import SessionState
from recording import redact
from recording.channel.tls import ClientFiles
from recording.channel.watched import WrongFile
from recording.delivery.connection import Target, open_target
from recording.logger import AuditLogger, safe_audit, safe_intend
from recording.record import Record, open_record
from recording.rows import close_call, cost_row, open_call
from recording.show import Show

if TYPE_CHECKING:
    from gateway_svc.tools.mcp.servers import McpServers

SECRET_VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")


@dataclass(frozen=True, slots=True)
class Recorded:
    """The agents of a deployment and the one record that all its engines share."""

    agents: list[Agent]
    record: Record
    claude_audit: ClaudeAudit
    """What the engine claude needs of the record."""
    ledger: LedgerSpending | None
    """Who is asked what labels have spent, where that is wished."""
    mcp: "McpServers | None" = None
    """The MCP servers, where there are any."""
    tool_names: frozenset[str] = frozenset()
    """The gateway's own tools that are offered."""
    unconfined: bool = False
    """Whether some of them start programs without a jail."""

    def record_session(self, state: SessionState) -> None:
        """Puts a session's state on the record."""
        safe_audit(self.record.logger, state.to_row())


def open_recorded(settings: GatewaySettings, answers: Answers) -> Recorded:
    """Builds the tools and the record once, and an agent over each HTTP engine that is configured.

    Raises:
        SettingsError: the tools, or the files for the audit service, cannot be had as they are set.
        OSError: the state directory cannot be used.
    """
    redact.protect(_secrets(settings))
    redact.show_fields({**kinds.shown(), **SHOWN_OF_CLAUDE})
    mcp = _build_mcp(settings) if settings.mcp_file else None
    policies = _tool_policies(settings)
    offered = kinds.build_tools(policies, settings.tool_seconds, [settings.state_dir])
    policies = {tool.name: policies[tool.name] for tool in offered.tools}
    toolbox = Toolbox(offered.tools, remote=mcp, policies=policies, timeout_seconds=settings.tool_seconds)
    settings.workspace.mkdir(parents=True, exist_ok=True)
    files = Files(settings.workspace)
    target = _open_target(settings)
    record = open_record(
        settings.state_dir,
        target,
        mode=settings.audit_mode,
        sync=settings.spool_sync,
        sync_interval_ms=settings.spool_sync_interval_ms,
        max_bytes=settings.spool_max_bytes,
    )
    agents = list(_build_agents(settings, toolbox, files, record.logger, answers))
    claude_audit = ClaudeAudit(
        open_call,
        close_call,
        cost_row,
        partial(safe_intend, record.logger),
        partial(safe_audit, record.logger),
    )
    ledger = LedgerSpending(target) if settings.budgets_from_ledger else None
    return Recorded(agents, record, claude_audit, ledger, mcp, frozenset(policies), offered.unconfined)


def _build_mcp(settings: GatewaySettings) -> "McpServers":
    try:
        from gateway_svc.tools.mcp.servers import McpServers  # an extra, which most deployments do without
        from gateway_svc.tools.mcp.settings import load_servers
    except ImportError as error:
        raise SettingsError(f"GATEWAY_MCP_FILE: install onrecord[mcp] for it ({error})") from None
    servers = load_servers(settings.mcp_file or Path(), os.environ)
    for name, server in servers.items():
        redact.protect(server.secrets)
        redact.show_fields(
            {f"{name}.{tool}": dict.fromkeys(fields, Show.VALUE) for tool, fields in server.record.items()}
        )
        if server.timeout_seconds >= settings.tool_seconds:
            raise SettingsError(f"GATEWAY_MCP_FILE: {name}: timeout_seconds must be less than GATEWAY_TOOL_SECONDS")
    return McpServers(servers, settings.state_dir / "mcp")


def _open_target(settings: GatewaySettings) -> Target:
    ca, certificate, key = settings.audit_tls_ca, settings.audit_tls_cert, settings.audit_tls_key
    files = ClientFiles(ca, certificate, key) if ca else None
    try:
        return open_target(settings.audit_target, files, settings.audit_token_file, settings.producer_name)
    except WrongFile as error:
        raise SettingsError(str(error)) from None


def _secrets(settings: GatewaySettings) -> list[str]:
    """The keys that this process holds: whatever a model makes of them, they are not recorded."""
    keys = [os.environ.get(name, "") for name in SECRET_VARIABLES]
    for engine in settings.engines.values():
        keys += engine.secrets
    return [key for key in keys if key]


def _build_agents(
    settings: GatewaySettings, toolbox: Toolbox, files: Files, logger: AuditLogger, answers: Answers
) -> Iterator[Agent]:
    """The gateway's own loop over each model server that is configured."""
    limits = Limits(settings.max_steps, settings.max_turn_seconds, settings.max_parallel_tools)
    for kind in engine_kinds():
        if not isinstance(kind, EngineKind) or (chosen := settings.engines.get(kind.name)) is None:
            continue
        yield Agent(
            kind.build(chosen),
            toolbox,
            files,
            logger,
            price=partial(cost_micros, chosen.url, kind.price_provider, local=chosen.is_local),
            context_tokens=partial(context_tokens, chosen.url, chosen.context_limit),
            cuts_silently=chosen.is_local,
            answers=answers,
            limits=limits,
        )


def _tool_policies(settings: GatewaySettings) -> Mapping[str, Policy]:
    """The tools that are wanted and their policies: all that there are, where the settings name none."""
    if unknown := sorted(settings.tools.keys() - kinds.kinds().keys()):
        known = ", ".join(kinds.kinds())
        raise SettingsError(f"GATEWAY_TOOLS: there is no tool {', '.join(unknown)}; the tools are {known}")
    return settings.tools or dict.fromkeys(kinds.kinds(), "allow")
