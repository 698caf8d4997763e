"""The bounds on what model servers, MCP servers and Claude's program may send, by what it becomes here; on sums.

docs/security.md has them all, with what one sees when one is met.

They are far above what models write, so that an honest answer never meets one; none of them has a setting.
"""

from collections import Counter
from dataclasses import dataclass

from recording import compact_json

MIB = 2**20

MAX_SUM = 2**63 - 1
"""The largest number of a message's field and of SQLite."""


MAX_COUNT = 2**53
"""The largest count that is taken from others: no real one is larger, and a larger one would spoil the sums."""


def saturated(total: int) -> int:
    """A sum, which stays at MAX_SUM where it would pass it."""
    return min(total, MAX_SUM)


@dataclass(frozen=True, slots=True)
class Bound:
    """The most of something in one answer."""

    name: str
    """What the record calls it, in snake_case."""
    limit: int
    of: str
    """What is counted, in the plural."""

    def check(self, count: int) -> None:
        """Raises Exceeded where there is more than the limit."""
        if count > self.limit:
            raise Exceeded(self)


class Exceeded(Exception):
    """An answer goes beyond a bound."""

    def __init__(self, bound: Bound) -> None:
        super().__init__(f"more than {bound.limit:,} {bound.of}")
        self.bound = bound


class Tally:
    """What one answer has taken up so far."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, bound: Bound, count: int = 1) -> None:
        """Counts more of something. Raises Exceeded."""
        self._counts[bound.name] += count
        bound.check(self._counts[bound.name])


RESPONSE = Bound("response_bytes", 256 * MIB, "bytes in one response")
"""After unpacking. A long answer has about 50 million, since each token comes in an object of its own."""
PIECES = Bound("response_pieces", 250_000, "pieces in one response")
"""Chunks of HTTP, as far as they come one by one."""
EVENTS = Bound("response_events", 500_000, "events in one response")
EVENT = Bound("event_bytes", 16 * MIB, "bytes in one event")
HEAD = Bound("response_head_bytes", 128 * 1024, "bytes ahead of a response")
"""The head of a response, and all informational (1xx) responses ahead of it."""
AFTER_END_BYTES = 64 * 1024
"""What is read behind the end of an answer, so that its connection can serve again; one with more is closed."""

TEXT = Bound("answer_text", 4 * MIB, "characters of text in one answer")
ARGUMENTS = Bound("answer_arguments", 8 * MIB, "characters of arguments in one answer")
CALLS = Bound("answer_calls", 256, "tool calls in one answer")
FRAGMENTS = Bound("answer_fragments", 250_000, "fragments of tool calls in one answer")
EVENT_FRAGMENTS = Bound("event_fragments", 512, "fragments of tool calls in one event")
"""They are put together in one piece of work. A server that does not stream sends whole calls in one."""
REREAD = Bound("answer_fragments_reread", 16 * MIB, "characters of arguments that fragments make one read again")
PARTS = Bound("answer_parts", 2_048, "parts in one answer")
"""Content blocks of Anthropic's Messages API, items of OpenAI's Responses API."""
HELD = Bound("answer_held", 32 * MIB, "characters of reasoning and items that are to go back to their server")
REASONING_CHARACTERS = MIB
"""What is kept of a model's reasoning, half of it from the beginning and half from the end."""

PROGRAM_TEXT = Bound("program_text", 32 * MIB, "characters of text, reasoning and arguments in one turn")
"""Of Claude's program, as they come: what it streams comes twice."""
PROGRAM_CALLS = Bound("program_calls", 10_000, "tool calls in one turn")
PROGRAM_REQUESTS = Bound("program_requests", 10_000, "model requests in one turn")

JSON_VALUES = Bound("json_values", 250_000, "values in one piece of JSON")
"""Of each event, each line of Claude's program, and each message of an MCP server. A value takes up to thirty times the
memory of its text."""
ARGUMENT_VALUES = Bound("argument_values", compact_json.MAX_VALUES, "values in the arguments of one call")
"""They are read several times: for the row, for the tool, and to go back to the model server."""
ARGUMENT_FIELDS = 1_000
"""Of one call's arguments."""


def check_json(text: str | bytes, bound: Bound = JSON_VALUES) -> None:
    """Counts the signs that make values (`,` `[` `{` `:`) before a text is parsed; those within strings make none.

    Raises:
        Exceeded: there are more than the bound.
    """
    if compact_json.has_too_many_values(text, bound.limit):
        raise Exceeded(bound)
