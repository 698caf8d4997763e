"""A model that does what its user says: the input is a list of tool calls in JSON, after whose results it is done."""

import json
from collections.abc import Iterable
from typing import Any

from tests.hostile.serving import Peer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ncontent-length: %d\r\n\r\n"


class ObedientModel(Peer):
    """Speaks Ollama's wire form."""

    keeps_alive = True

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, list[str]] = {}
        """What it was told as the results of an input's calls."""
        self.offered: set[str] = set()
        """The tools of the last request."""
        self.broken: list[str] = []
        """Requests that are no JSON."""

    def answer(self, head: str, body: bytes) -> Iterable[bytes]:
        """Does what the last input says."""
        answer = self._answer(body) if body else b"{}"
        return [HEAD % len(answer) + answer]

    def _answer(self, body: bytes) -> bytes:
        try:
            asked = json.loads(body, parse_constant=self.broken.append)
        except ValueError as error:
            self.broken.append(str(error))
            asked = {"messages": []}
        self.offered = {tool["function"]["name"] for tool in asked.get("tools", [])}
        user, results = "", list[str]()
        for told in asked["messages"]:
            if told["role"] == "user":
                user, results = told["content"], []
            elif told["role"] == "tool":
                results.append(told["content"])
        message: dict[str, Any] = {"role": "assistant", "content": "done"}
        if results:
            self.told[user] = results
        elif user.startswith("["):
            message |= {"content": "", "tool_calls": [{"function": call} for call in json.loads(user)]}
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 9}
        return json.dumps({"model": "m", "message": message, **done}).encode() + b"\n"
