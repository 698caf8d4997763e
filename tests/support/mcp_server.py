"""An MCP server for tests, made with the package's own server: `python mcp_server.py [stdio | http PORT [json]]`.

Each tool does one thing that a server can do to its client.
"""

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from mcp.server.mcpserver import Context, Image, MCPServer
from pydantic import Field

server = MCPServer("tests")


@server.tool()
def echo(text: str, note: str = "") -> str:
    """Says it again."""
    return text


@server.tool()
def routed(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
    urgent: Annotated[bool, Field(json_schema_extra={"x-mcp-header": "Urgent"})] = False,
) -> str:
    """Wants its arguments in the head of a request too."""
    return f"{region} {urgent}"


@server.tool()
def fail(text: str) -> str:
    """Fails, and says what it was given."""
    raise ValueError(f"failed on {text}")


@server.tool()
async def sleep(seconds: float, flag: str = "") -> str:
    """Takes its time; `flag` names a file to make first."""
    if flag:
        await asyncio.to_thread(Path(flag).touch)
    await asyncio.sleep(seconds)
    return "slept"


@server.tool()
def die(flag: str = "") -> str:
    """Ends the server in the middle of the call, or only the first time where `flag` names a file to make."""
    if flag and Path(flag).exists():
        return "lived"
    if flag:
        Path(flag).touch()
    os._exit(3)


@server.tool()
def flood(megabytes: int) -> str:
    """Says a lot."""
    return "x" * (megabytes * 2**20)


@server.tool()
def environment() -> dict[str, str]:
    """All that the server can see of its environment, and where it runs."""
    return {**os.environ, "PWD_NOW": str(Path.cwd())}


@server.tool()
def picture() -> Image:
    """A picture of one pixel."""
    return Image(data=base64.b64decode("R0lGODlhAQABAAAAACw="), format="gif")


@server.tool()
def child() -> int:
    """Starts a process in a session of its own, and tells its number."""
    null = subprocess.DEVNULL
    return subprocess.Popen(["sleep", "300"], start_new_session=True, stdin=null, stdout=null, stderr=null).pid


@server.tool()
async def grow(ctx: Context) -> str:
    """Offers one tool more."""
    server.add_tool(lambda: "grown", name="grown", description="A tool that came later.")
    await ctx.notify_tools_changed()
    return "done"


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        asyncio.run(
            server.run_streamable_http_async(host="127.0.0.1", port=int(sys.argv[2]), json_response="json" in sys.argv)
        )
    else:
        server.run("stdio")
