"""`gateway-svc tools`: which tools a gateway with this environment would offer, and why others are not."""

import asyncio

import structlog

from gateway_svc.errors import SettingsError
from gateway_svc.settings import GatewaySettings
from service_kit.settings import load_settings, refuse
from service_kit.terminal.printing import Json, Printer, Table, print_fields


def tools(as_json: Json = False) -> None:
    """List the tools that a gateway with this environment offers, MCP servers asked, and why others are left out."""
    settings = load_settings(GatewaySettings)
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())  # the table says it
    try:
        asyncio.run(_show(settings, as_json=as_json))
    except (SettingsError, OSError) as error:
        refuse([str(error)])


async def _show(settings: GatewaySettings, *, as_json: bool) -> None:
    from gateway_svc.toolset import open_tools  # loads all tools

    toolset = open_tools(settings)
    mcp = toolset.mcp
    found: list[tuple[str, str, str]] = []
    if mcp:
        await mcp.start()
    try:
        found += [(one.name, toolset.toolbox.policy(one.name), "") for one in toolset.toolbox.definitions()]
        left_out = {**toolset.left_out, **(mcp.left_out() if mcp else {})}
        down = [f"{state.name}.*" for state in mcp.states() if not state.is_up] if mcp else []
        found += [(name, "", reason) for name, reason in left_out.items()]
        found += [(name, "", "the MCP server is not running") for name in down]
    finally:
        if mcp:
            await mcp.aclose()
    table = Table("tool", "policy", "left out, because", text="left out, because", wraps=True)
    for row in found:
        if as_json:
            print_fields(dict(zip(("tool", "policy", "left_out_because"), row, strict=True)))
        else:
            table.add_row(*row)
    if not as_json:
        Printer().print(table)
