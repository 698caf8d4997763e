"""An MCP server in bare JSON lines, for what the package's own server cannot be made to do wrong.

`python raw_mcp_server.py [deaf]` offers the tool `go`, whose argument `do` says how the call ends. A `deaf` server says
that its tools have changed, and never tells which they are now.
"""

import json
import os
import signal
import sys
from typing import Any

SCHEMA = {"type": "object", "properties": {"do": {"type": "string"}}}
GO = {"name": "go", "inputSchema": SCHEMA, "outputSchema": {"type": "object", "required": ["count"]}}
ANSWERS: dict[str, Any] = {
    "": {"content": [{"type": "text", "text": "gone"}], "structuredContent": {"count": 1}},
}


def tell(line: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0", **line}), flush=True)


def call(arguments: dict[str, Any]) -> Any:
    if arguments.get("do") == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    return ANSWERS[arguments.get("do", "")]


def main() -> None:
    lists = 0
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Any = {}
        match asked["method"]:
            case "initialize":
                about = {
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": "raw", "version": "1"},
                }
                answer = {"protocolVersion": "2025-06-18", **about}
            case "tools/list":
                lists += 1
                if "deaf" in sys.argv and lists > 1:
                    continue
                answer = {"tools": [GO]}
            case "tools/call":
                answer = call(asked["params"].get("arguments", {}))
                if "deaf" in sys.argv:
                    tell({"method": "notifications/tools/list_changed"})
        if "id" in asked:
            tell({"id": asked["id"], "result": answer})


if __name__ == "__main__":
    main()
