"""The tools of a deployment: its own, those of MCP servers, and what the record shows of each."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway_svc.engines.claude.shown import SHOWN_OF_CLAUDE
from gateway_svc.errors import SettingsError
from gateway_svc.settings import GatewaySettings, Policy
from gateway_svc.tools import kinds
from gateway_svc.tools.mcp.servers import McpServers
from gateway_svc.tools.mcp.settings import load_servers
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.workspace import check_environment, check_programs
from recording import redact
from recording.channel.watched import WrongFile
from recording.show import Show
from service_kit.rules.file import Rules
from service_kit.settings import name_variable


@dataclass(frozen=True, slots=True)
class Toolset:
    """What is offered, and what is not."""

    toolbox: Toolbox
    mcp: McpServers | None
    """The MCP servers, where there are any."""
    rules: Rules | None
    """Rules on arguments, where there are any."""
    left_out: Mapping[str, str]
    """Why tools of our own are not offered, by their names."""


def open_tools(settings: GatewaySettings) -> Toolset:
    """Builds the tools, and tells the record how their arguments are shown. MCP servers are not started yet.

    Raises:
        SettingsError: the tools cannot be had as they are set.
        OSError: a folder of an MCP server cannot be made.
    """
    redact.keep_arguments(settings.arguments)
    redact.show_fields(kinds.shown(), complete=True)
    redact.show_fields(SHOWN_OF_CLAUDE)
    mcp = _build_mcp(settings) if settings.mcp_file else None
    policies = _policies(settings)
    offered = kinds.build_tools(policies, settings.tool_seconds, [settings.state_dir])
    if mcp:
        mcp.make_room_for(len(offered.tools))
    rules = _open_rules(settings)
    toolbox = Toolbox(
        offered.tools,
        remote=mcp,
        jail=offered.jail,
        unconfined=offered.unconfined,
        rules=rules,
        policies={tool.name: policies[tool.name] for tool in offered.tools},
        timeout_seconds=settings.tool_seconds,
    )
    return Toolset(toolbox, mcp, rules, offered.left_out)


def _policies(settings: GatewaySettings) -> Mapping[str, Policy]:
    """The tools that are wanted and their policies: all that there are, where the settings name none."""
    if unknown := sorted(settings.tools.keys() - kinds.kinds().keys()):
        known = ", ".join(kinds.kinds())
        raise SettingsError(f"GATEWAY_TOOLS: there is no tool {', '.join(unknown)}; the tools are {known}")
    return settings.tools or dict.fromkeys(kinds.kinds(), "allow")


def _open_rules(settings: GatewaySettings) -> Rules | None:
    try:
        return Rules(settings.rules_file) if settings.rules_file else None
    except WrongFile as error:
        raise SettingsError(name_variable(settings, error)) from None


def _build_mcp(settings: GatewaySettings) -> McpServers:
    servers = load_servers(settings.mcp_file or Path(), os.environ)
    for name, server in servers.items():
        if server.command:
            check_programs(settings.workspace, "GATEWAY_MCP_FILE", [server.command, *server.args])
            check_environment(settings.workspace, server.env, f"GATEWAY_MCP_FILE: {name}: env: ")
            if server.cwd and server.cwd.resolve().is_relative_to(settings.workspace):
                raise SettingsError(f"GATEWAY_MCP_FILE: {name}: cwd must not lie in GATEWAY_WORKSPACE")
        redact.protect(server.secrets)
        shown = {f"{name}.{tool}": dict.fromkeys(fields, Show.VALUE) for tool, fields in server.record.items()}
        redact.show_fields(shown)
        if server.timeout_seconds >= settings.tool_seconds:
            raise SettingsError(f"GATEWAY_MCP_FILE: {name}: timeout_seconds must be less than GATEWAY_TOOL_SECONDS")
    return McpServers(servers, settings.state_dir / "mcp")
