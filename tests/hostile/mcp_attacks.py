"""An MCP server that means harm: a tool `go` whose argument `do` says what answers it.

`python mcp_attacks.py MODE` is a program; mcp_over_http.py answers the same at an address.
MODE is `go`, or says what is wrong with the list of tools, or `hangs`: it never answers its first request.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

WORDS = "Mallory 4111 1111 1111 1111"
SCHEMA = {"type": "object", "properties": {"do": {"type": "string"}}}
CHECKED = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}}


def tool(name: str, schema: Any = SCHEMA, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "d", "inputSchema": schema, **more}


def costly() -> dict[str, Any]:
    """A schema of 64 kB whose alternatives each lead to all of its properties."""
    names: dict[str, Any] = {f"p{number}": {} for number in range(1_000)}
    branches = [{"$ref": "#/$defs/a"}] * 1_800
    return {"type": "object", "anyOf": branches, "$defs": {"a": {"properties": names, "required": list(names)[:500]}}}


NAN = {"type": "object", "properties": {"a": {"maximum": float("nan")}}}
LISTS: dict[str, list[Any]] = {
    "go": [tool("go", outputSchema=CHECKED)],
    "many": [tool(f"t{number}") for number in range(10_000)],
    "nan": [tool("bad", NAN), tool("fine")],
    "costly": [tool(f"c{number}", costly()) for number in range(100)],
}


def result(number: int, **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": {"content": [], **more}}).encode()


def text(number: int, told: str) -> bytes:
    return result(number, content=[{"type": "text", "text": told}])


def inside(number: int, piece: bytes, times: int) -> bytes:
    """An answer with 16 MiB of small values."""
    return b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"a":[' % number + piece * times + b"0]}}"


def refusal(number: int, code: bytes) -> bytes:
    told = json.dumps(f"unknown tool {WORDS}").encode()
    return b'{"jsonrpc":"2.0","id":%d,"error":{"code":%s,"message":%s}}' % (number, code, told)


def flood(line: bytes, times: int) -> Callable[[int], Iterator[bytes]]:
    def lines(number: int) -> Iterator[bytes]:
        for _ in range(times // 1000):
            yield b"\n".join([line] * 1000)
        yield text(number, "fine")

    return lines


def one(make: Callable[[int], bytes]) -> Callable[[int], Iterator[bytes]]:
    return lambda number: iter([make(number)])


NOTICE = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
PING = b'{"jsonrpc":"2.0","id":7,"method":"ping"}'
ATTACKS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "pattern": one(lambda number: result(number, structuredContent={"x": "a" * 40 + "!"})),
    "lists": one(lambda number: inside(number, b"[],", 5_000_000)),
    "objects": one(lambda number: inside(number, b'{"a":1},', 2_000_000)),
    "numbers": one(lambda number: inside(number, b"1,", 8_000_000)),
    "strings": one(lambda number: inside(number, b'"",', 5_000_000)),
    "deep": one(lambda number: inside(number, b"[", 15_000_000)),
    "escapes": one(lambda number: text(number, '"' * 8_000_000)),
    "halves": one(lambda number: text(number, "\ud83d" * 2_700_000)),
    "text": one(lambda number: text(number, "x" * 15_000_000)),
    "blocks": one(lambda number: result(number, content=[{"type": "text", "text": "x"}] * 30_000)),
    "code": one(lambda number: refusal(number, b"4111" + b"7" * 4_000)),
    "words": one(lambda number: refusal(number, b"4111111111111111")),
    "overlong": one(lambda number: b"x" * 40_000_000),
    "garbage": flood(b"not json", 20_000),
    "notices": flood(NOTICE, 20_000),
    "pings": flood(PING, 20_000),
}
"""The messages that each sends, without what separates them."""


def reply(mode: str, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What is answered to all that is no call."""
    if asked.get("method") == "initialize":
        about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "m", "version": "1"}}
        return {"result": {"protocolVersion": "2025-06-18", **about}}
    if asked.get("method") == "tools/list":
        return {"result": {"tools": LISTS[mode]}}
    return None if "id" not in asked else {"error": {"code": -32601, "message": "Method not found"}}


def main(mode: str) -> None:
    """The program."""
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if mode == "hangs":
            if asked.get("method") == "initialize":
                with subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, start_new_session=True) as child:
                    child.wait()
            continue
        if asked.get("method") == "tools/call":
            for piece in ATTACKS[asked["params"]["arguments"]["do"]](asked["id"]):
                sys.stdout.buffer.write(piece + b"\n")
        elif answer := reply(mode, asked):
            answer = {"jsonrpc": "2.0", "id": asked["id"], **answer}
            sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
