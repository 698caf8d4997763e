"""Fits a conversation into the model's context. What is kept is all of it.

Tokens are estimated from bytes: three bytes a token until the model server has counted a request of the session, then
by that count, between one and four. A request that a server refused for its length sets a ceiling for the session. A
quarter of the context, at most 16,384 tokens, is kept for the answer, and a tenth of the rest for estimation errors.
If a conversation exceeds that,

1. tool results of earlier turns are shortened;
2. whole earlier turns are left out, the oldest first, with a mark in the user's next message;
3. tool results of earlier steps of the turn are shortened, then whole steps are left out, with a mark;
4. results of the last step are shortened.

So a tool call always keeps its result. More is left out than needed, in chunks of half a byte for each token of the
context: requests then have the same beginning for many turns, so that model servers' caches stay useful.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gateway_svc.engines import Encoded
from gateway_svc.messages import AssistantMessage, Message, SystemMessage, ToolMessage, UserMessage
from gateway_svc.tools.output import shorten

BYTES_PER_TOKEN = 3.0
"""Bytes a token before anything is known: English has about four, code and other languages less."""
MIN_BYTES_PER_TOKEN, MAX_BYTES_PER_TOKEN = 1.0, 4.0
IMPLAUSIBLE_BYTES_PER_TOKEN = 12.0
"""A token count below this share of the bytes does not cover the whole request."""
MAX_ANSWER_TOKENS = 16_384
SHORT_RESULT_CHARACTERS = 600
LEAST_RESULT_CHARACTERS = 40
"""For results of the last step, which may have hundreds of them."""
MARK_BYTES = 200
"""More than a mark has."""
MAX_ESTIMATES = 1_000

_LEFT_OUT_TURNS = "[What was said before this, {} turns of it, was left out: it does not fit your context.]\n\n"
_LEFT_OUT_STEPS = "\n\n[Your first {} steps on this were left out: they do not fit your context.]"


class _Shortened(ToolMessage):
    """A result that was shortened, and may be again."""

    __slots__ = ()


@dataclass(slots=True)
class _Estimate:
    """The estimate for one model in one session."""

    bytes_per_token: float = BYTES_PER_TOKEN
    most_bytes: int = sys.maxsize
    """The ceiling set by a refusal."""


class TokenEstimator:
    """Estimates how many bytes a token has, from model servers' counts and refusals."""

    def __init__(self) -> None:
        self._estimates: OrderedDict[tuple[str, str], _Estimate] = OrderedDict()

    def room_bytes(self, session_id: str, model: str, context_tokens: int) -> int:
        """How many bytes to send to a model with this context."""
        tokens = context_tokens - min(context_tokens // 4, MAX_ANSWER_TOKENS)
        estimate = self._estimates.get((session_id, model), _Estimate())
        return min(int(tokens * 0.9 * estimate.bytes_per_token), estimate.most_bytes)

    def learn(self, session_id: str, model: str, sent_bytes: int, input_tokens: int) -> None:
        """Takes a server's token count for a request of sent_bytes."""
        found = sent_bytes / max(input_tokens, 1)
        estimate = self._estimates.setdefault((session_id, model), _Estimate())
        estimate.bytes_per_token = min(max(found, MIN_BYTES_PER_TOKEN), MAX_BYTES_PER_TOKEN)
        self._estimates.move_to_end((session_id, model))
        if len(self._estimates) > MAX_ESTIMATES:
            self._estimates.popitem(last=False)

    def lower(self, session_id: str, model: str, sent_bytes: int, input_tokens: int, context_tokens: int) -> None:
        """Lowers the estimate after a request that the server truncated: it had more tokens than the context."""
        self.learn(session_id, model, int(sent_bytes * 0.9), max(input_tokens, context_tokens))

    def refuse(self, session_id: str, model: str, sent_bytes: int, context_tokens: int) -> None:
        """Lowers the estimate after a request that the server refused for its length. No later count raises it again,
        since each attempt to send more would be refused.
        """
        self.lower(session_id, model, sent_bytes, 0, context_tokens)
        room = self.room_bytes(session_id, model, context_tokens)
        self._estimates[session_id, model].most_bytes = min(room, sent_bytes * 3 // 4)


class Context:
    """The messages of a conversation as they are sent. Each is encoded once, and again only if it is shortened.

    It may go on from turn to turn, so that a turn costs what is new.
    """

    def __init__(
        self, encode: Callable[[Message], Encoded], messages: Sequence[Message], *, system_prompt: bool = False
    ) -> None:
        """`messages` are a history, system_prompt: ahead of which stands the system prompt."""
        self._encode = encode
        self.covers = len(messages) - system_prompt
        """How many messages of the history it was made of."""
        self._messages = list(messages)
        self.encoded = [encode(message) for message in messages]
        """The messages for the model server; do not modify."""
        self.size = sum(map(len, self.encoded))
        """Bytes of all messages."""
        self.left_out_turns = 0
        self.left_out_steps = 0
        self.shortened_results = 0
        self.fitted_bytes = sys.maxsize
        """What it was fitted to when something was shortened or left out last."""
        self.is_told = True
        """Whether the client was told in this turn of what was shortened or left out."""
        self._squeezed = False
        """Whether even the last step's results were shortened."""
        self._left_out_bytes = 0
        self._counted: tuple[int, int] | None = None
        """Bytes and tokens of the last request, while requests only grow."""

    def append(self, message: Message) -> None:
        """Adds a message at the end."""
        self.covers += 1
        self._messages.append(message)
        self.encoded.append(self._encode(message))
        self.size += len(self.encoded[-1])

    @property
    def can_go_on(self) -> bool:
        """Whether the next turn can take it. What was cut of the turn's own steps, the next turn has room for again."""
        return not (self.left_out_steps or self._squeezed)

    def go_on(self, messages: Sequence[Message]) -> None:
        """Begins another turn with what was said since."""
        self._counted = None
        self.is_told = not (self.left_out_turns or self.shortened_results)
        for message in messages:
            self.append(message)

    def fit(self, room_bytes: int, piece_bytes: int) -> bool:
        """Shortens and leaves out what exceeds room_bytes, whole turns by piece_bytes; returns whether it did."""
        if self.size <= room_bytes:
            return False
        self._counted = None
        self.fitted_bytes = room_bytes
        before = self.left_out_turns, self.left_out_steps, self.shortened_results
        self._shorten(self._head, self._turn, room_bytes=0)
        if self.size > room_bytes:
            self._leave_out_turns(room_bytes, piece_bytes)
        if self.size > room_bytes:
            self._shorten(self._turn, self._last_step, room_bytes=room_bytes * 3 // 4)
        if self.size > room_bytes:
            self._leave_out_steps(room_bytes * 3 // 4)
        characters = SHORT_RESULT_CHARACTERS * 128
        while self.size > room_bytes and characters > LEAST_RESULT_CHARACTERS:
            characters //= 2
            self._squeezed = True
            self._shorten(self._last_step, len(self._messages), room_bytes=0, characters=characters)
        return before != (self.left_out_turns, self.left_out_steps, self.shortened_results)

    def count(self, input_tokens: int, context_tokens: int) -> bool:
        """Takes a server's token count; returns whether it shows that the server silently truncated the request.

        It does if the context is full, if no text has so few tokens, or if more was sent than before and fewer tokens
        were counted. A count of 0 means no count.
        """
        if not input_tokens:
            return False
        least = self.size / IMPLAUSIBLE_BYTES_PER_TOKEN
        if self._counted:
            before_bytes, before_tokens = self._counted
            # up to a quarter less may come from a template, such as one that drops earlier reasoning
            least = max(least, before_tokens * 0.75 + (self.size - before_bytes) / IMPLAUSIBLE_BYTES_PER_TOKEN)
        cut = input_tokens >= context_tokens or input_tokens < least
        self._counted = None if cut else (self.size, input_tokens)
        return cut

    @property
    def _head(self) -> int:
        return int(bool(self._messages) and isinstance(self._messages[0], SystemMessage))

    @property
    def _turn(self) -> int:
        """Where the turn begins: the user's last message."""
        return next((at for at in self._backwards() if isinstance(self._messages[at], UserMessage)), self._head)

    @property
    def _last_step(self) -> int:
        """Where the last step begins; the end of the messages if the turn has none."""
        last = next((at for at in self._backwards() if not isinstance(self._messages[at], ToolMessage)), 0)
        return last if isinstance(self._messages[last], AssistantMessage) else len(self._messages)

    def _backwards(self) -> range:
        return range(len(self._messages) - 1, -1, -1)

    def _shorten(self, begin: int, end: int, *, room_bytes: int, characters: int = SHORT_RESULT_CHARACTERS) -> None:
        """Shortens results from begin to end, the oldest first, until all fits into room_bytes."""
        for at in range(begin, end):
            message = self._messages[at]
            if self.size <= room_bytes:
                return
            if isinstance(message, ToolMessage) and len(message.text) > characters + 100:
                text, _ = shorten(message.text, characters, 2_000)
                self._replace(at, _Shortened(message.provider_call_id, message.tool_name, text))
                self.shortened_results += not isinstance(message, _Shortened)

    def _leave_out_turns(self, room_bytes: int, piece_bytes: int) -> None:
        excess = self._left_out_bytes + self.size + MARK_BYTES - room_bytes
        wanted = -(-excess // piece_bytes) * piece_bytes
        begins = [
            at for at in range(self._head, self._turn + 1) if isinstance(self._messages[at], UserMessage)
        ]  # of the turns that may be left out, and of the one that stays
        end = begins[0] if begins else self._head
        for begin, next_begin in pairwise(begins):
            if self._left_out_bytes >= wanted:
                break
            self._left_out_bytes += sum(map(len, self.encoded[begin:next_begin]))
            self.left_out_turns += 1
            end = next_begin
        self._delete(self._head, end)

    def _leave_out_steps(self, room_bytes: int) -> None:
        begin = end = self._turn + 1
        last, size = self._last_step, self.size
        while end < last and size > room_bytes:
            step = end
            end += 1
            while end < last and not isinstance(self._messages[end], AssistantMessage):
                end += 1
            size -= sum(map(len, self.encoded[step:end]))
            self.left_out_steps += 1
        self._delete(begin, end)

    def _delete(self, begin: int, end: int) -> None:
        if begin == end:
            return
        del self._messages[begin:end]
        del self.encoded[begin:end]
        turn = self._turn
        for at in {self._head, turn}:
            if isinstance(message := self._messages[at], UserMessage):
                mark = _LEFT_OUT_TURNS.format(self.left_out_turns) if at == self._head and self.left_out_turns else ""
                end_mark = _LEFT_OUT_STEPS.format(self.left_out_steps) if at == turn and self.left_out_steps else ""
                self.encoded[at] = self._encode(UserMessage(mark + message.text + end_mark))
        self.size = sum(map(len, self.encoded))

    def _replace(self, at: int, message: Message) -> None:
        self.size -= len(self.encoded[at])
        self._messages[at] = message
        self.encoded[at] = self._encode(message)
        self.size += len(self.encoded[at])
