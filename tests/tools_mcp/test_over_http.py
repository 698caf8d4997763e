"""What HTTP alone has: the version and the session in the head, and statuses without an answer in the protocol."""

import json
from collections.abc import Iterator
from typing import Any

from gateway_svc.tools.mcp.settings import ServerSettings
from tests.hostile.serving import Peer
from tests.tools_mcp.played import FINE, tool


def response(status: int, body: Any = "", session: str = "") -> bytes:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    named = f"mcp-session-id: {session}\r\n" if session else ""
    kind = "text/html" if isinstance(body, str) else "application/json"
    head = f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: {kind}\r\n{named}"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


class Server(Peer):
    """A server with sessions, which speaks one version of the protocol; `answers` are to its first calls."""

    def __init__(self, *answers: bytes, version: str = "2025-06-18") -> None:
        super().__init__()
        self.version = version
        self.answers = [*answers]
        self.sessions = 0
        self.calls = 0
        self.reply = response(202)
        """What it answers to the answer to its own request."""

    def answer(self, head: str, body: bytes) -> Iterator[bytes]:
        asked = json.loads(body) if body else {}
        method, number = asked.get("method"), asked.get("id")
        fields = dict(line.lower().split(": ", 1) for line in head.splitlines() if ": " in line)
        good = {"jsonrpc": "2.0", "id": number}
        about = {"protocolVersion": self.version, "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
        error = {"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "Unsupported version"}}
        if method == "initialize":
            self.sessions += 1
            yield response(200, good | {"result": about}, f"s{self.sessions}")
        elif fields.get("mcp-session-id") is None:
            error["error"] = {"code": -32600, "message": "Bad Request: Missing session ID"}
            yield response(400, error, "of-a-refusal")
        elif fields.get("mcp-protocol-version") != self.version:
            yield response(400, error)
        elif method == "tools/list":
            yield response(200, good | {"result": {"tools": [tool("go")]}})
        elif method == "tools/call":
            self.calls += not self.answers
            yield self.answers.pop(0) if self.answers else response(200, good | {"result": {"content": FINE}})
        elif method is None and number is not None:
            yield self.reply
        else:
            yield response(202 if body else 405)


def at(server: Server) -> ServerSettings:
    return ServerSettings(url=f"{server.url}/mcp", timeout_seconds=20)


async def test_the_head_names_the_version_that_the_handshake_agreed_on(open_desk):
    async with Server() as server:
        desk = await open_desk(t=at(server))
        assert desk.names() == ["t.go"]
        assert (await desk.run("t.go")).text == "fine"
