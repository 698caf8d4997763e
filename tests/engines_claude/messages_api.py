"""The model behind Claude's program, scripted: Anthropic's Messages API on a real port, as far as it is used."""

import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.claude_cli import Line, message, usage


class MessagesApi:
    """Answers the n-th request that offers tools with the n-th step, the last one for ever."""

    def __init__(self, steps: Sequence[Line]) -> None:
        """A step is {"text", "tools", "pause", "cut"}.

        pause is in seconds, ahead of each event of the stream; cut ends a stream with an error behind so many events.
        """
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
        if request.get("stream"):
            self._stream(handler, number, step, request["model"])
        else:
            self._send_whole(handler, number, step, request["model"])

    def _send_whole(self, handler: BaseHTTPRequestHandler, number: int, step: Line, model: str) -> None:
        content = [{"type": "text", "text": step.get("text", "")}, *step.get("tools", ())]
        answer: Line = {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
        }
        answer |= {"stop_reason": "tool_use" if step.get("tools") else "end_turn", "usage": usage()}
        body = json.dumps(answer).encode()
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _stream(self, handler: BaseHTTPRequestHandler, number: int, step: Line, model: str) -> None:
        lines = message(f"msg_{number}", step.get("text", ""), step.get("tools", ()), model=model)
        events = [line["event"] for line in lines if line["type"] == "stream_event"]
        if "cut" in step:
            broken: Line = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            events = [*events[: step["cut"]], broken]
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        try:
            for event in events:
                time.sleep(step.get("pause", 0))
                handler.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        except ConnectionError:
            pass  # the program was interrupted

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
