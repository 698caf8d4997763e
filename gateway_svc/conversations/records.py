"""The records of a conversation, whatever its home is made of: messages as kinds and payloads, and back."""

import json
from collections import deque
from dataclasses import dataclass, field

from gateway_svc.conversations.encryption import Cipher, NotGenuine
from gateway_svc.conversations.messages import Line, encode, from_line, to_line
from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage

USER, ASSISTANT, TOOL = 1, 2, 3
"""The payload is a message."""
SUMS = 4
"""The payload is what a running turn has spent: a revision of the state's sums."""
STATE, PROMPT = 5, 6
"""The payload is what the session is, see stored.py."""

MAX_READ_BYTES = 2**28
"""How much of a conversation is read at most: of a longer one its end, by whole turns. No model takes so much."""

_KINDS: dict[type, int] = {UserMessage: USER, AssistantMessage: ASSISTANT, ToolMessage: TOOL}


@dataclass(slots=True)
class Found:
    """What was read of a conversation."""

    messages: list[Message] = field(default_factory=list)
    size_bytes: int = 0
    """The size of the messages as they are kept."""
    sums: Line = field(default_factory=dict)
    """The last ones; empty if there are none."""
    end: int = 0
    """Where the next record goes."""
    number: int = 1
    """The number of the next record."""
    holes: list[str] = field(default_factory=list)
    """What could not be read, for people."""
    left_out: int = 0
    """Messages at the beginning that were not read, since the conversation is too long."""
    _kept: deque[tuple[int, int, bytes]] = field(default_factory=deque)

    @property
    def unreadable(self) -> str:
        """What could not be read, as a sentence; empty if all could."""
        parts = self.holes[:3] + ([f"and {len(self.holes) - 3} more"] if len(self.holes) > 3 else [])
        if self.left_out:
            parts.append(f"its first {self.left_out} messages were not read, since it is longer than 256 MiB")
        return "; ".join(parts)

    def add(self, number: int, kind: int, payload: bytes) -> None:
        """Adds a message's record; of a conversation that is too long its first turns are left out."""
        self._kept.append((number, kind, payload))
        self.size_bytes += len(payload)
        while self.size_bytes > MAX_READ_BYTES and self._leave_out_a_turn():
            pass

    def decode_all(self) -> None:
        """Makes messages of the records that were added."""
        for number, _, payload in self._kept:
            if (line := self.decode(payload, number)) is not None:
                try:
                    self.messages.append(from_line(line))
                except (KeyError, TypeError, ValueError, AttributeError):
                    self.holes.append(f"record {number} is none that this version knows")
        self._kept.clear()

    def decode(self, payload: bytes, number: int) -> Line | None:
        """The JSON object of a record; None, and a hole, if it is none."""
        try:
            value = json.loads(payload)
        except ValueError:
            value = None
        if isinstance(value, dict):
            return value
        self.holes.append(f"record {number} is none that this version knows")
        return None

    def decrypt(self, cipher: Cipher, number: int, kind: int, stored: bytes) -> bytes | None:
        """The payload of a record; None, and a hole, if it is not what was written there.

        Raises:
            KeyMissing: the key that it is encrypted by is not there.
        """
        try:
            return cipher.decrypt(kind, number, stored)
        except NotGenuine as error:
            self.holes.append(f"record {number} {error}")
            return None

    def _leave_out_a_turn(self) -> bool:
        """Leaves out the oldest turn; False if it is the only one."""
        if not any(kind == USER for at, (_, kind, _) in enumerate(self._kept) if at):
            return False
        while True:
            self.size_bytes -= len(self._kept.popleft()[2])
            self.left_out += 1
            if self._kept[0][1] == USER:
                return True


def record_of(message: Message) -> tuple[int, bytes]:
    """The kind and the payload of a message's record."""
    return _KINDS[type(message)], encode(to_line(message))
