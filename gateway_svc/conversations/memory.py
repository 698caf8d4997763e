"""Conversations that were read, in memory for their next turn: those that were used last, up to a bound in bytes."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from gateway_svc.messages import EncodedConversation, Message

_MESSAGE_BYTES = 800
"""What a message takes in memory beside its text: its objects, and those of its encoded form."""


@dataclass(slots=True)
class History:
    """What was said in a session, as models are told it."""

    messages: list[Message] = field(default_factory=list)
    contexts: dict[str, EncodedConversation] = field(default_factory=dict)
    """What engines keep of it from turn to turn, by their names."""
    unreadable: str = ""
    """What of it could not be read, as a sentence for people; empty if all could."""
    bytes: int = 0
    """The size of the messages as they are kept."""

    @property
    def memory_bytes(self) -> int:
        """About what it takes in memory."""
        return self.bytes + len(self.messages) * _MESSAGE_BYTES + sum(kept.size for kept in self.contexts.values())


@dataclass(slots=True)
class Kept:
    """A history, and where its home has it."""

    identity: Hashable
    """Of what it was read from."""
    end: int
    """How much of that it covers."""
    number: int
    """The number that the next record gets."""
    history: History


class Memory:
    """Histories by session. Any thread may call its methods."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept = OrderedDict[str, tuple[Kept, int]]()
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, session_id: str) -> Kept | None:
        """Takes a session's history out of the memory; None if it is not there."""
        with self._lock:
            kept, size = self._kept.pop(session_id, (None, 0))
            self._bytes -= size
            return kept

    def put(self, session_id: str, kept: Kept) -> None:
        """Puts a session's history in, and forgets others for it."""
        size = kept.history.memory_bytes
        with self._lock:
            self._kept[session_id] = kept, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, forgotten) = self._kept.popitem(last=False)
                self._bytes -= forgotten

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._kept
