"""An MCP server that means harm costs its own calls; the other tools, and the turns of others, go on."""

import asyncio
import json
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import mcp_attacks
from tests.hostile.conftest import Start
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.house import Case, open_house
from tests.hostile.mcp_attacks import WORDS
from tests.hostile.mcp_over_http import HTTP_ATTACKS, McpAttacks

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

UNREADABLE = ("FAILED", "gave an answer that cannot be read")
LOST = ("INTERRUPTED", "ended in the middle of the call")
FINE = ("SUCCEEDED", "^$")
OTHER = ("FAILED", r"refused the call \(other\)$")
ENDS: dict[str, tuple[str, str]] = {
    "pattern": FINE,
    "lists": UNREADABLE,
    "objects": UNREADABLE,
    "numbers": UNREADABLE,
    "strings": UNREADABLE,
    "deep": UNREADABLE,
    "escapes": FINE,
    "halves": FINE,
    "text": FINE,
    "blocks": FINE,
    "code": OTHER,
    "words": OTHER,
    "overlong": LOST,
    "garbage": FINE,
    "notices": FINE,
    "pings": FINE,
}
OF_BODIES = {"garbage": UNREADABLE, "notices": UNREADABLE, "pings": UNREADABLE}
"""A body is one message."""
OF_HTTP: dict[str, tuple[str, str]] = {
    "gzip": UNREADABLE,
    "small chunks": LOST,
    "small chunks of events": LOST,
    "comments": LOST,
    "a stream without an end": LOST,
    "informational": LOST,
    "a large head": LOST,
    "trailers": ("SUCCEEDED|INTERRUPTED", ""),
}

QUICK = {"pattern", "objects", "code", "overlong"}


def cases(ends: dict[str, tuple[str, str]]) -> list[Case]:
    """Each with a server of its own: one that broke off is not asked again at once."""
    return [
        Case(name, ({"name": f"m{at}.go", "arguments": {"do": name}},), *end, told=WORDS if end is OTHER else "")
        for at, (name, end) in enumerate(ends.items())
    ]


def file_of(folder: Path, **servers: dict[str, Any]) -> str:
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return str(path)


def program(mode: str, **more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(Path(mcp_attacks.__file__)), mode], **more}


@pytest.mark.parametrize(
    ("transport", "names"),
    [
        ("program", QUICK),
        *(pytest.param(way, None, marks=pytest.mark.long) for way in ("program", "json", "events")),
    ],
)
async def test_each_answer_costs_its_own_call_and_nobody_else_feels_it(
    start: Start, tmp_path: Path, transport: str, names: set[str] | None
):
    assert OF_HTTP.keys() == HTTP_ATTACKS.keys()
    assert ENDS.keys() == mcp_attacks.ATTACKS.keys()
    async with McpAttacks() as server:
        ends = ENDS | (OF_BODIES | OF_HTTP if transport == "json" else {})
        ends = {name: end for name, end in ends.items() if names is None or name in names}
        settings = program("go") if transport == "program" else {"url": f"{server.url}/{transport}"}
        servers = {f"m{at}": settings for at in range(len(ends))}
        async with open_house(start, tmp_path, GATEWAY_MCP_FILE=file_of(tmp_path, **servers)) as house:
            assert await house.stand_all(cases(ends)) == []
            assert house.model.broken == []
        log = house.gateway.stderr_text()
        assert "Mallory" not in log
        assert log.count("mcp.messages_skipped") < 2 * len(ends)


async def test_a_list_of_tools_costs_only_its_tools(start: Start, tmp_path: Path):
    """Of ten thousand tools, schemas that cost, and such as no JSON has, the usable ones are offered."""
    servers = {mode: program(mode) for mode in ("many", "nan", "costly", "go")}
    async with open_house(start, tmp_path, GATEWAY_MCP_FILE=file_of(tmp_path, **servers)) as house:
        before = forget_peak(house.gateway)
        assert await house.stand_all([Case("go", ({"name": "go.go", "arguments": {"do": "text"}},), "SUCCEEDED")]) == []
        assert {"nan.fine", "go.go", "many.t0", "read"} <= house.model.offered
        assert "nan.bad" not in house.model.offered
        assert house.model.broken == []
        assert memory(house.gateway, "VmHWM") - before < 256 * MIB
        log = house.gateway.stderr_text()
        assert len(re.findall("mcp.tools_left_out", log)) < 10
        assert len(log) < 100_000


@pytest.mark.long
async def test_a_server_that_hangs_at_initialize_holds_up_no_end(start: Start, tmp_path: Path):
    """The gateway ends by SIGTERM before the server's time is over, and so does what the server has started."""
    settings = program("hangs", start_seconds=600)
    async with open_house(start, tmp_path, GATEWAY_MCP_FILE=file_of(tmp_path, m=settings)) as house:
        assert (await house.turn([])).end == "COMPLETED"
        house.gateway.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(house.gateway.process.wait, 60) == 0
        assert house.gateway.stderr_text().count("drain.late") == 0
        assert marked_in(tmp_path) == []


def marked_in(folder: Path) -> list[str]:
    """Processes that a server has started, of a gateway with this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            environment = entry.read_bytes()
            if str(folder).encode() in environment and b"ONRECORD_MCP" in environment:
                found.append(entry.parent.name)
    return found
