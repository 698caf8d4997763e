"""`gateway-svc tools`: which tools a gateway with this environment would offer, and why others are not."""

import asyncio

import structlog

from gateway_svc.errors import SettingsError
from gateway_svc.settings import GatewaySettings
from service_kit.settings import load_settings, refuse
from service_kit.terminal.printing import Printer, Table


def tools() -> None:
    """List the tools that a gateway with this environment offers, MCP servers asked, and why others are left out."""
    settings = load_settings(GatewaySettings)
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())  # the table says it
    try:
        asyncio.run(_show(settings))
    except (SettingsError, OSError) as error:
        refuse([str(error)])


async def _show(settings: GatewaySettings) -> None:
    from gateway_svc.toolset import open_tools  # loads all tools

    toolset = open_tools(settings)
    mcp = toolset.mcp
    table = Table("tool", "policy", "left out, because", text="left out, because")
    if mcp:
        await mcp.start()
    try:
        for definition in toolset.toolbox.definitions():
            table.add_row(definition.name, toolset.toolbox.policy(definition.name), "")
        for name, reason in {**toolset.left_out, **(mcp.left_out() if mcp else {})}.items():
            table.add_row(name, "", reason)
        for state in mcp.states() if mcp else ():
            if not state.is_up:
                table.add_row(f"{state.name}.*", "", "the MCP server is not running")
    finally:
        if mcp:
            await mcp.aclose()
    Printer().print(table)
