"""Fits a conversation to the server that it goes to, whoever has answered in it so far.

- An answer goes back as its server sent it (`Native`) to that server and model alone; to all others by text and calls.
- Ids of calls are unique within a request. Those of another server or model, and those that come again in a later step,
  are replaced by nine letters and digits, which every server takes: Mistral takes no others, Anthropic no dots, OpenAI
  none of more than 40 or 64 characters.
- An answer without text and calls is told as NOTHING_SAID, since many servers refuse an empty one.

Each message is encoded once, and again only where it goes out in another form than before.
"""

import re
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from gateway_svc.messages import AssistantMessage, Message, Native, ToolMessage, UserMessage

NOTHING_SAID = "(no answer)"
NOT_SHOWN = "(not shown)"
"""In place of thoughts, for a server that demands some with every call, of an answer that it did not give itself."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARACTERS = 9


@dataclass(frozen=True, slots=True)
class Reader:
    """Who is to read a history."""

    origin: str
    """The API and the server."""
    model: str
    rules: Hashable = None
    """What else a message's encoding depends on."""
    keeps_ids: bool = True
    """Whether ids that it gave itself go back as they are."""
    id_form: re.Pattern[str] = re.compile(r".*", re.DOTALL)
    """What an id has to look like to go back as it is."""

    def gave(self, message: AssistantMessage) -> bool:
        """Whether the answer is its own."""
        return message.native is not None and (message.native.origin, message.native.model) == (self.origin, self.model)


@dataclass(frozen=True, slots=True)
class Form:
    """How one message goes out."""

    reader: Reader
    own: bool
    """Whether the reader gave the answer itself."""
    ids: tuple[str, ...]
    """The ids of its calls, or the id of the call that it is the result of."""

    def native(self, message: AssistantMessage) -> Native | None:
        """What the reader sent beside text and calls."""
        return message.native if self.own else None


@dataclass(eq=False, slots=True)
class _Fitting:
    """How far one conversation has been fitted to one reader."""

    reader: Reader
    taken: set[str] = field(default_factory=set)
    open: dict[str, deque[str]] = field(default_factory=dict)
    """The ids that go out for the last answer's calls, by those that they have."""

    def form(self, message: Message) -> Form:
        match message:
            case AssistantMessage():
                own = self.reader.gave(message)
                sent = [(call.tool_call_id, self._sent(call.tool_call_id, own=own)) for call in message.tool_calls]
                self.open = {given: deque() for given, _ in sent}
                for given, as_sent in sent:
                    self.open[given].append(as_sent)
                return Form(self.reader, own, tuple(as_sent for _, as_sent in sent))
            case ToolMessage(tool_call_id):
                waiting = self.open.get(tool_call_id)
                return Form(self.reader, False, (waiting.popleft() if waiting else portable_id(tool_call_id),))
            case _:
                return Form(self.reader, False, ())

    def _sent(self, given: str, *, own: bool) -> str:
        kept = own and self.reader.keeps_ids and self.reader.id_form.fullmatch(given)
        sent, again = given if kept else portable_id(given), 0
        while sent in self.taken:
            again += 1
            sent = portable_id(given, again)
        self.taken.add(sent)
        return sent


Encode = Callable[[Message, Form], bytes]


class Encoded:
    """A message, and its bytes in the form in which it went out last."""

    __slots__ = ("_encode", "_form", "_size", "data", "fitting", "message")

    def __init__(self, message: Message, encode: Encode, reader: Reader) -> None:
        """`reader` is the one that is likely to be asked."""
        self.message = message
        self._encode = encode
        self._form = _Fitting(reader).form(message)
        self.data = encode(message, self._form)
        self._size = len(self.data)
        self.fitting: _Fitting | None = None

    def __len__(self) -> int:
        return self._size

    def fit(self, fitting: _Fitting) -> None:
        """Takes the form in which the next request has it."""
        form = fitting.form(self.message)
        if form != self._form:
            self._form, self.data = form, self._encode(self.message, form)
        self.fitting = fitting


def fit(history: Sequence[Encoded], reader: Reader) -> list[bytes]:
    """The messages as the reader takes them. What it was sent before is not looked at again."""
    fitting = history[0].fitting if history else None
    begin = next((at for at, message in enumerate(history) if message.fitting is not fitting), len(history))
    if fitting is None or fitting.reader != reader or any(m.fitting is fitting for m in history[begin:]):
        fitting, begin = _Fitting(reader), 0
    for message in history[begin:]:
        message.fit(fitting)
    return [message.data for message in history]


def nonempty_text(message: UserMessage | AssistantMessage) -> str:
    """What a message says; never nothing, since many servers refuse an empty one."""
    return message.text if message.text.strip() else NOTHING_SAID


def portable_id(given: str, again: int = 0) -> str:
    """An id in a form that every server takes: always the same for the same one."""
    if not again and len(given) == _ID_CHARACTERS and given.isascii() and given.isalnum():
        return given
    number = int.from_bytes(sha256(f"{again} {given}".encode("utf-8", "replace")).digest()[:8], "big")
    digits = []
    for _ in range(_ID_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
