"""What HTTP alone has: the version and the session in the head, and statuses without an answer in the protocol."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2
from structlog.testing import capture_logs

from gateway_svc.tools.mcp.settings import ServerSettings
from tests.hostile.serving import Peer
from tests.tools_mcp.played import FINE, tool

SUCCEEDED, FAILED = common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED


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


def refused(message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": message}}


GONE = {
    "the specification": response(404),
    "with an error": response(404, refused("Session not found")),
    "the Python SDK": response(400, "Invalid session ID"),
    "the TypeScript SDK": response(400, refused("Bad Request: No valid session ID provided")),
    "its transport": response(400, refused("Bad Request: Server not initialized")),
}


@pytest.mark.parametrize("who", GONE)
async def test_a_call_in_a_session_that_the_server_has_forgotten_is_made_in_a_new_one(open_desk, who):
    async with Server(GONE[who]) as server:
        desk = await open_desk(t=at(server))
        result = await desk.run("t.go")
        assert (result.text, result.outcome) == ("fine", SUCCEEDED)
        assert (server.sessions, server.calls) == (2, 1)


async def test_a_server_that_forgets_each_session_is_asked_twice(open_desk):
    async with Server(*[response(404)] * 9) as server:
        desk = await open_desk(t=at(server))
        result = await desk.run("t.go")
        assert (result.outcome, result.error) == (
            FAILED,
            "the MCP server t is not running; it is being started again",
        )
        assert len(server.answers) == 7


STATUSES = {
    307: "the MCP server t answered HTTP 307: look at its url",
    400: "the MCP server t answered HTTP 400",
    401: "the MCP server t answered HTTP 401: look at its headers in the MCP file",
    403: "the MCP server t answered HTTP 403: look at its headers in the MCP file",
    429: "the MCP server t answered HTTP 429: try again later",
    502: "the MCP server t answered HTTP 502: try again later",
}


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_without_an_answer_is_told_with_what_to_do(open_desk, status):
    body = {"error": "invalid_token", "error_description": "secret"} if status in (401, 403) else "<p>secret</p>"
    async with Server(response(status, body)) as server:
        desk = await open_desk(t=at(server))
        result = await desk.run("t.go")
        assert (result.outcome, result.error) == (FAILED, STATUSES[status])
        assert (await desk.run("t.go")).text == "fine"
        assert server.sessions == 1


async def test_why_a_server_cannot_be_reached_is_in_the_log(open_desk):
    class Closed(Peer):
        def answer(self, head: str, body: bytes) -> Iterator[bytes]:
            yield response(401, {"error": "invalid_token"})

    async with Closed() as server:
        with capture_logs() as logs:
            await open_desk(t=ServerSettings(url=server.url))
        reasons = {line["reason"] for line in logs if line["event"] == "mcp.failed"}
        assert reasons == {"the server answered HTTP 401: look at its headers in the MCP file"}


async def test_an_error_without_an_id_is_of_the_request_that_it_answers(open_desk):
    """Not of the call that waits, when it answers our reply to what the server asked."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    fine = {"jsonrpc": "2.0", "id": 0, "result": {"content": FINE}}
    events = b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"

    class Asking(Server):
        def answer(self, head: str, body: bytes) -> Iterator[bytes]:
            asked = json.loads(body) if body else {}
            if asked.get("method") != "tools/call":
                yield from super().answer(head, body)
                return
            yield events + b"data: %s\n\n" % json.dumps(ping).encode()
            for _ in range(2_000):
                yield b":" + b" " * 4_000 + b"\n"  # while our reply is refused
            yield b"data: %s\n\n" % json.dumps(fine | {"id": asked["id"]}).encode()

    async with Asking() as server:
        server.reply = response(400, refused("Bad Request: no such request"))
        desk = await open_desk(t=at(server))
        assert (await desk.run("t.go")).text == "fine"


class Pausing(Server):
    """It ends the stream of each call ahead of the answer, having told a place in it, and goes on where it is asked."""

    def __init__(self, *rest: bytes) -> None:
        super().__init__()
        self.rest = [*rest]
        self.heard: list[str] = []

    def answer(self, head: str, body: bytes) -> Iterator[bytes]:
        if b"tools/call" in body:
            self.calls += 1
            self.number = json.loads(body)["id"]
            yield EVENTS + b"id: e1\nretry: 1\ndata:\n\n"
        elif "last-event-id: " in head.lower():
            self.heard += [line[15:] for line in head.splitlines() if line.lower().startswith("last-event-id: ")]
            yield self.rest.pop(0).replace(b"ID", b"%d" % self.number) if self.rest else response(405)
        else:
            yield from super().answer(head, body)


EVENTS = b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
ANSWER = b'data: {"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"fine"}]}}\n\n'


async def test_a_stream_that_ends_ahead_of_its_answer_goes_on_where_it_ended(open_desk):
    async with Pausing(EVENTS + b"id: e2\ndata: {}\n\n", EVENTS, EVENTS + b"id: e3\n" + ANSWER) as server:
        desk = await open_desk(t=at(server))
        with capture_logs() as logs:
            assert (await desk.run("t.go")).text == "fine"
        assert (server.calls, server.sessions, server.heard) == (1, 1, ["e1", "e2", "e2"])
        assert [line["event"] for line in logs].count("mcp.messages_skipped") <= 1


async def test_a_stream_that_is_not_continued_leaves_its_call_open_and_it_is_not_made_again(open_desk):
    async with Pausing() as server:
        desk = await open_desk(t=at(server))
        assert (await desk.run("t.go")).outcome == common_pb2.OUTCOME_INTERRUPTED
        assert (server.calls, server.heard) == (1, ["e1"])


async def test_a_stream_is_waited_for_no_longer_than_its_call(open_desk):
    async with Pausing(*[EVENTS] * 1_000) as server:
        desk = await open_desk(t=ServerSettings(url=server.url, timeout_seconds=1))
        assert (await desk.run("t.go")).outcome == common_pb2.OUTCOME_TIMED_OUT
        assert (server.calls, len(server.heard) < 12) == (1, True)


class Moved(Server):
    """It answers at one path only, and sends all others there."""

    def __init__(self, path: str, to: str) -> None:
        super().__init__()
        self.path, self.to = path, to
        self.paths = list[str]()

    def answer(self, head: str, body: bytes) -> Iterator[bytes]:
        path = head.split(" ")[1]
        self.paths.append(path)
        if path == self.path:
            yield from super().answer(head, body)
        else:
            to = self.to.replace("HERE", self.url)
            yield f"HTTP/1.1 307 X\r\nconnection: close\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("to", ["/mcp/", "HERE/mcp/", "mcp/"])
async def test_a_server_that_has_moved_within_its_origin_is_followed(open_desk, to):
    async with Moved("/mcp/", to) as server:
        desk = await open_desk(t=at(server))
        assert (await desk.run("t.go")).text == "fine"
        assert server.calls == 1


@pytest.mark.parametrize("to", ["HERE.example/mcp", "http://127.0.0.1:1/mcp", "https://[", "/elsewhere", ""])
async def test_a_server_is_followed_to_no_other_origin_and_not_for_ever(open_desk, to):
    async with Moved("/nowhere", to) as server:
        with capture_logs() as logs:
            await open_desk(t=at(server))
        reasons = {line["reason"] for line in logs if line["event"] == "mcp.failed"}
        assert reasons == {"the server answered HTTP 307: look at its url"}
        assert len(server.paths) <= 2 * 4
