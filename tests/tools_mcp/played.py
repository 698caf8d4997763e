"""Plays the servers of the stranger's suite: bare lines, in modes that were seen in the wild."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MODE = sys.argv[1] if __name__ == "__main__" else ""
OBJECT = {"type": "object", "properties": {"x": {"type": "string"}}}
FINE = [{"type": "text", "text": "fine"}]


def raw(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def tell(message: dict[str, Any]) -> None:
    raw(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def tool(name: str, schema: Any = OBJECT, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "d", "inputSchema": schema, **more}


ALTERNATIVES = [
    {"type": "object", "properties": {"a": {"type": "string"}, "c": {}}, "required": ["a", "c"]},
    {"type": "object", "properties": {"b": {"type": "string"}, "c": {}}, "required": ["b", "c"]},
]
DEEP: dict[str, Any] = {}
for _ in range(150):
    DEEP = {"a": DEEP}
TOOLS: dict[str, list[Any]] = {
    "noschema": [tool("a"), {"name": "bad", "description": "d"}, tool("go")],
    "badannot": [tool("a"), tool("bad", annotations={"readOnlyHint": "sometimes"}), tool("go")],
    "anyof": [tool("go"), tool("bad", {"anyOf": ALTERNATIVES})],
    "nullprops": [tool("go"), tool("bad", {"type": "object", "properties": None})],
    "many": [tool(f"t{number}") for number in range(100)],
    "outputs": [
        tool("go", outputSchema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    ],
    "nan": [tool("go"), tool("bad", {"type": "object", "properties": {"a": {"maximum": float("nan")}}})],
    "deep": [tool("go"), tool("bad", {"type": "object", "properties": {"a": DEEP}})],
    "required": [tool("go"), tool("bad", {**OBJECT, "required": [{}, "x"]})],
    "array": [tool("go"), tool("bad", {"type": "array"})],
    "elsewhere": [tool("go"), tool("bad", {"type": "object", "properties": {"a": {"$ref": "http://h/x"}}})],
    "brackets": [tool("go", {"type": "object", "properties": {"filter[x]": {"type": "string"}}})],
    "names": [tool(name) for name in ("go", "a\nb", "\x1b[31m", "x" * 91, "", "é", "go", "b/c")] + ["text", None],
    "surrogates": [tool("go", description="\ud800 x")],
    "regex": [tool("go", outputSchema={"type": "object", "properties": {"x": {"pattern": "^(a+)+$"}}})],
}
ERRORS = {"e32000": -32000, "e32001": -32001, "e32602": -32602, "card": 4111111111111111}


def answer(number: int) -> None:
    text = json.dumps({"jsonrpc": "2.0", "id": number, "result": {"content": FINE}}).encode()
    match MODE:
        case "outputs":
            tell({"id": number, "result": {"content": [{"type": "text", "text": "did the work: 7"}]}})
        case "regex":
            tell({"id": number, "result": {"content": [], "structuredContent": {"x": "a" * 40 + "!"}}})
        case "badblock":
            blocks = [{"type": "text", "text": "important text"}, {"type": "image", "data": "AAAA"}, {"type": 5}, None]
            tell({"id": number, "result": {"content": blocks}})
        case "surrogate":
            raw(text.replace(b"fine", b"cut emoji \\ud83d") + b"\n")
        case "badutf8":
            raw(text.replace(b"fine", b"caf\xe9") + b"\n")
        case "batch":
            raw(b"[" + text + b"]\n")
        case "cut":
            raw(text[:-3] + b"\n")
        case "cut-late-id":
            raw(b'{"jsonrpc":"2.0","result":{"content":[{"id":1,"text":"x"]},"id":%d}\n' % number)
        case "parts":
            raw(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"a":[' % number + b"[]," * 4_000_000 + b"[]]}}\n")
        case "digits":
            raw(b'{"jsonrpc":"2.0","id":%d,"error":{"code":4111%s,"message":"m"}}\n' % (number, b"7" * 4_000))
        case "null-id":
            tell({"id": None, "error": {"code": -32603, "message": "internal"}})
        case "text-id":
            tell({"id": str(number), "result": {"content": FINE}})
        case "word-code":
            tell({"id": number, "error": {"code": "E_FAIL", "message": "text code"}})
        case "garbage":
            end = time.monotonic() + 1
            while time.monotonic() < end:
                raw(b"not json at all\n" * 1000)
            raw(text + b"\n")
        case "asks":
            for asked in ("sampling/createMessage", "roots/list", "ping"):
                tell({"id": number, "method": asked, "params": {}})
            raw(text + b"\n")
        case "no-result":
            tell({"id": number, "result": "fine"})
        case _ if MODE in ERRORS:
            tell({"id": number, "error": {"code": ERRORS[MODE], "message": "no such record"}})
        case _:
            raw(text + b"\n")


def main() -> None:
    lists = 0
    if MODE == "slow":
        time.sleep(float(sys.argv[2]))
    for line in sys.stdin:
        asked = json.loads(line)
        method, number, params = asked.get("method"), asked.get("id"), asked.get("params") or {}
        if MODE == "stateless" and method == "initialize":
            tell({"id": number, "error": {"code": -32022, "message": "none", "data": {"supported": ["2026-07-28"]}}})
        elif MODE == "stateless" and "io.modelcontextprotocol/protocolVersion" not in params.get("_meta", {}):
            tell({"id": number, "error": {"code": -32602, "message": "no version"}})
        elif method == "initialize":
            tell(
                {
                    "id": number,
                    "result": {
                        "protocolVersion": "2025-06-18",
                        "capabilities": {"tools": {}},
                        "serverInfo": {"name": "raw", "version": "1"},
                    },
                }
            )
        elif MODE == "stateless" and method == "server/discover":
            tell({"id": number, "result": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}})
        elif method == "subscriptions/listen":
            continue
        elif method == "tools/list":
            lists += 1
            if MODE == "no-tools":
                tell({"id": number, "error": {"code": -32601, "message": "Method not found"}})
                continue
            if MODE == "one-page":
                tell({"id": number, "result": {"tools": [tool("go")], "nextCursor": "1"}})
                continue
            if MODE == "pages" and "cursor" in params:
                tell({"id": number, "error": {"code": -32602, "message": "no such cursor"}})
                continue
            if MODE == "pages":
                tell({"id": number, "result": {"tools": [tool("go")], "nextCursor": "more"}})
                continue
            tell({"id": number, "result": {"tools": TOOLS.get(MODE, [tool("go")])}})
            if MODE == "loop":
                tell({"method": "notifications/tools/list_changed"})
            if len(sys.argv) > 2 and MODE == "loop":
                with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
                    file.write(f"{lists}\n")
        elif method == "tools/call":
            if params.get("arguments", {}).get("x") == "wait":
                continue
            if MODE == "told":  # the call says what is answered
                raw(params["arguments"]["x"].replace("ID", str(number)).encode(errors="surrogateescape") + b"\n")
                continue
            if MODE == "brackets":
                told = [{"type": "text", "text": json.dumps(params["arguments"])}]
                tell({"id": number, "result": {"content": told}})
                continue
            answer(number)
        elif number is not None:
            tell({"id": number, "error": {"code": -32601, "message": "Method not found"}})
    os._exit(0)


if __name__ == "__main__":
    main()
