"""The model behind Claude's program, scripted: Anthropic's Messages API on a real port, as far as it is used."""

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.claude_cli import Line, message


class MessagesApi:
    """Answers the n-th request that offers tools with the n-th step, the last one for ever."""

    def __init__(self, steps: Sequence[Line]) -> None:
        """A step is {"text", "tools", "pause"}: pause is in seconds, ahead of each event of the stream."""
        self.requests: list[Line] = []
        self._steps = steps
        self._lock = threading.Lock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                api._answer(self, json.loads(self.rfile.read(length)))

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, handler: BaseHTTPRequestHandler, request: Line) -> None:
        with self._lock:
            step: Line = {"text": "aside"}
            if request.get("tools"):
                step = self._steps[min(len(self.requests), len(self._steps) - 1)]
                self.requests.append(request)
            number = len(self.requests)
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        try:
            for line in message(f"msg_{number}", step.get("text", ""), step.get("tools", ()), model=request["model"]):
                if line["type"] == "stream_event":
                    time.sleep(step.get("pause", 0))
                    event = line["event"]
                    handler.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        except ConnectionError:
            pass  # the program was interrupted

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
