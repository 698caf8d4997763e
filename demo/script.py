"""A script for the model server: the steps that a model takes, as a TOML or JSON file or as these objects.

A script in TOML, with everything that is usual in it:

    models = ["scripted"]           # other models are refused as unknown; without the line any name will do

    [[steps]]                       # the model's first answer to the user
    text = "I will look."
    tool_calls = [
      { name = "read", arguments = { path = "README.md" } },
      { name = "bash", arguments = { command = "exit 3" }, id = "call_mine" },
    ]

    [[steps]]                       # its answer to the tools' results
    text = "Done."

    [pages."/pages/hello.html"]     # served over plain HTTP on the same port, for webfetch
    body = "<h1>Hello</h1>"

Which step comes next is read from the request: it is the number of assistant messages since the last message of the
user. So a script needs no memory, every new message of the user starts it again, and any number of conversations can go
through it at the same time.
"""

import json
import tomllib
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Call(_Part):
    """A tool call."""

    name: str
    arguments: dict[str, Any] | str = {}
    """An object, or the text that the model wrote, which need not be JSON."""
    id: str | None = None
    """None: the server generates one, as real servers do. Empty: it sends none. Ids may repeat."""


class Tokens(_Part):
    """The token counts that the server reports; None: the real count."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None


class Refusal(_Part):
    """An HTTP error instead of an answer."""

    status: int = 500
    message: str = "the script says so"
    code: str | None = None
    """OpenAI's error code, such as `insufficient_quota`."""
    body: str | None = None
    """Sent unchanged, in place of an error body in the server's format."""
    headers: dict[str, str] = {}
    times: PositiveInt | None = None
    """How many requests fail before the step is answered, over all conversations; None: all."""


class Step(_Part):
    """One answer of the model, or a way to fail."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[Call, ...] = ()
    finish: str | None = None
    """Why the model stopped, in the server's term; None: what the real server would say."""
    tokens: Tokens = Tokens()
    repeat: PositiveInt = 1
    """How many times in a row the step is taken."""

    delay_ms: float = Field(default=0, ge=0)
    """Before the first byte of the response."""
    chunk_delay_ms: float = Field(default=0, ge=0)
    """Before each further chunk of a stream. Without it, a stream is written at once."""
    argument_chars: PositiveInt | None = None
    """OpenAI streams a call's arguments in fragments of this many characters; None: token by token."""
    split_bytes: PositiveInt | None = None
    """The bytes of a stream are split into pieces of this size, wherever that falls."""

    refuse: Refusal | None = None
    error_after: int | None = Field(default=None, ge=0)
    """After this many chunks of a stream with status 200, an error line ends it."""
    error_status: int | None = None
    """The status in the error line, if the format has a place for it."""
    cut_after: int | None = Field(default=None, ge=0)
    """After this many chunks the connection is cut."""
    omit: frozenset[Literal["usage", "finish", "done"]] = frozenset()
    """Parts to leave out of a stream. `done` is Ollama's last chunk and OpenAI's `[DONE]`."""


class Page(_Part):
    """A page to fetch."""

    body: str | bytes = ""
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: dict[str, str] = {}
    delay_ms: float = Field(default=0, ge=0)


class Script(_Part):
    """Everything that a model server does."""

    steps: tuple[Step, ...] = ()
    one_prompt: bool = False
    """Whether a conversation has one prompt: the steps go on over messages of the user that come behind it, such as
    reminders that an agent writes itself."""
    aside: Step | None = None
    """The answer to a request that offers no tools, as agents send them for a title; None: the next step, as to any."""
    models: tuple[str, ...] = ()
    """The models it has; empty: any."""
    capabilities: frozenset[str] = frozenset({"completion", "tools", "thinking"})
    """The capabilities that Ollama reports for its models; a request for more is refused."""
    context_tokens: PositiveInt | None = None
    """The context size of its models in tokens: OpenAI's format refuses more, Ollama's silently truncates."""
    api_key: str | None = None
    """The key that OpenAI's format requires."""
    check: bool = True
    """Refuse what the real servers refuse. Otherwise requests are not even parsed, for benchmarks: parsing a long
    history takes longer than answering it."""
    pages: dict[str, Page] = {}
    """By path, such as `/pages/hello.html`."""

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(step.repeat for step in self.steps))

    def step_at(self, position: int) -> tuple[int, Step] | None:
        """The step at this position of a conversation, with its index; None after the last one."""
        number = bisect_right(self._ends, position)
        return (number, self.steps[number]) if number < len(self.steps) else None


def load_script(path: Path) -> Script:
    """Reads a script from a file whose name ends in .toml or .json.

    Raises:
        ValueError: the file is no TOML or JSON, or says what a script cannot (pydantic.ValidationError).
        OSError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    return Script.model_validate(json.loads(text) if path.suffix == ".json" else tomllib.loads(text))


def position(roles: Iterable[str], *, one_prompt: bool = False) -> int:
    """The number of assistant messages since the last user message; with one_prompt, of all."""
    answers = 0
    for role in roles:
        if role == "user" and not one_prompt:
            answers = 0
        elif role == "assistant":
            answers += 1
    return answers
