"""Adapts a conversation to the server that it is sent to, whichever servers have answered in it so far.

- An answer goes back unchanged (`Native`) only to the server and model that gave it; others get its text and calls.
- Ids of calls are unique within a request. Those of another server or model, and those that are repeated in a later
  step, are replaced by nine letters and digits, which every server accepts: Mistral accepts nothing else, Anthropic no
  dots, OpenAI no more than 40 or 64 characters.
- An answer without text and calls becomes NOTHING_SAID, since many servers refuse an empty one.

Each message is encoded once, and again only if it is sent in another form than before.
"""

import re
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from gateway_svc.messages import AssistantMessage, Message, Native, ToolMessage, UserMessage

NOTHING_SAID = "(no answer)"
NOT_SHOWN = "(not shown)"
"""Replaces the thoughts of another server's answer, for a server that requires thoughts with every call."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARACTERS = 9


@dataclass(frozen=True, slots=True)
class Reader:
    """The server and model that a history is sent to."""

    origin: str
    """The API and the server."""
    model: str
    rules: Hashable = None
    """What else the encoding of a message depends on."""
    keeps_ids: bool = True
    """Whether its own ids go back unchanged."""
    id_form: re.Pattern[str] = re.compile(r".*", re.DOTALL)
    """The form of ids that go back unchanged."""

    def gave(self, message: AssistantMessage) -> bool:
        """Whether it gave this answer."""
        return message.native is not None and (message.native.origin, message.native.model) == (self.origin, self.model)


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a message is sent."""

    reader: Reader
    own: bool
    """Whether the reader itself gave the answer."""
    ids: tuple[str, ...]
    """The ids of its calls, or the id of the call whose result it is."""

    def native(self, message: AssistantMessage) -> Native | None:
        """The answer as the reader sent it; None if another server gave it."""
        return message.native if self.own else None


@dataclass(eq=False, slots=True)
class _Fitting:
    """The state of adapting one conversation to one reader."""

    reader: Reader
    taken: set[str] = field(default_factory=set)
    open: dict[str, deque[str]] = field(default_factory=dict)
    """The ids sent for the last answer's calls, by their original ids."""

    def form(self, message: Message) -> Form:
        match message:
            case AssistantMessage():
                own = self.reader.gave(message)
                sent = [
                    (call.provider_call_id, self._sent(call.provider_call_id, own=own)) for call in message.tool_calls
                ]
                self.open = {given: deque() for given, _ in sent}
                for given, as_sent in sent:
                    self.open[given].append(as_sent)
                return Form(self.reader, own, tuple(as_sent for _, as_sent in sent))
            case ToolMessage(provider_call_id):
                waiting = self.open.get(provider_call_id)
                return Form(self.reader, False, (waiting.popleft() if waiting else portable_id(provider_call_id),))
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
    """A message, and its bytes in the form in which it was last sent."""

    __slots__ = ("_encode", "_form", "_size", "data", "fitting", "message")

    def __init__(self, message: Message, encode: Encode, reader: Reader) -> None:
        """`reader` is the likely recipient."""
        self.message = message
        self._encode = encode
        self._form = _Fitting(reader).form(message)
        self.data = encode(message, self._form)
        self._size = len(self.data)
        self.fitting: _Fitting | None = None

    def __len__(self) -> int:
        return self._size

    def fit(self, fitting: _Fitting) -> None:
        """Takes the form for the next request."""
        form = fitting.form(self.message)
        if form != self._form:
            self._form, self.data = form, self._encode(self.message, form)
        self.fitting = fitting


def fit(history: Sequence[Encoded], reader: Reader) -> list[bytes]:
    """The messages in the form for reader. Those that it was sent before are not processed again."""
    fitting = history[0].fitting if history else None
    begin = next((at for at, message in enumerate(history) if message.fitting is not fitting), len(history))
    # A shortened result belongs to calls whose ids have already been sent.
    is_late = begin < len(history) and isinstance(history[begin].message, ToolMessage)
    if fitting is None or fitting.reader != reader or is_late or any(m.fitting is fitting for m in history[begin:]):
        fitting, begin = _Fitting(reader), 0
    for message in history[begin:]:
        message.fit(fitting)
    return [message.data for message in history]


def sender(message: Message, default_model: str) -> str:
    """The model that a message is encoded for at first: the one that gave it, else the default one."""
    return message.native.model if isinstance(message, AssistantMessage) and message.native else default_model


def nonempty_text(message: UserMessage | AssistantMessage) -> str:
    """A message's text, never empty, since many servers refuse that."""
    return message.text if message.text.strip() else NOTHING_SAID


def portable_id(given: str, again: int = 0) -> str:
    """An id in a form that every server accepts; the same input gives the same id."""
    if not again and len(given) == _ID_CHARACTERS and given.isascii() and given.isalnum():
        return given
    number = int.from_bytes(sha256(f"{again} {given}".encode("utf-8", "replace")).digest()[:8], "big")
    digits = []
    for _ in range(_ID_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
