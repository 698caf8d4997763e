"""The text of the main conversation: what the client has been sent, and what the transcript keeps.

A message comes in pieces, and then each of its blocks as a whole, which is authoritative. When the model's stream
breaks off, the program asks again, streamed or not, and the new message has another id: the client gets the part that
it does not have yet or, if the new text differs, a notice and all of it.
"""

from collections.abc import Callable

AGAIN = "\n\n[The answer was cut off. It begins again:]\n\n"


class Speech:
    """The text of one run."""

    def __init__(self, tell: Callable[[str], None], keep: Callable[[str], None]) -> None:
        """`tell` receives the client's text, piece by piece, and `keep` each whole block."""
        self._tell = tell
        self._keep = keep
        self._message_id = ""
        self._pieces: list[str] = []
        """Text of this message that no whole block has confirmed yet."""
        self._heard = ""
        """Text of an abandoned message that the client has, and that this message has not repeated yet."""
        self._caught_up = 0
        """How many characters of it this message has repeated in pieces."""
        self.silent = True
        """Whether there was no text since the last result."""

    def begin(self, message_id: str, *, anew: bool = False) -> None:
        """A line of this message or, with `anew`, its first piece. Unconfirmed text of another message is abandoned."""
        if message_id == self._message_id and not anew:
            return
        self._message_id = message_id
        unconfirmed = "".join(self._pieces)
        self._pieces.clear()
        self._caught_up = 0
        if len(unconfirmed) > len(self._heard):
            self._heard = unconfirmed

    def add_piece(self, piece: str) -> None:
        """Takes a piece of the current block."""
        if not piece:
            return
        self._pieces.append(piece)
        self.silent = False
        if not self._heard:
            self._tell(piece)
            return
        begin, self._caught_up = self._caught_up, self._caught_up + len(piece)
        whole = self._caught_up >= len(self._heard)
        if not whole and self._heard.startswith(piece, begin):
            return
        if whole and piece.startswith(self._heard[begin:]):
            self._tell(piece[len(self._heard) - begin :])
        else:
            self._tell(AGAIN + "".join(self._pieces))
        self._heard, self._caught_up = "", 0

    def add_block(self, message_id: str, text: str) -> None:
        """Takes a whole block."""
        if message_id:
            self.begin(message_id)
        self.silent &= not text
        unconfirmed = "".join(self._pieces)
        self._pieces.clear()
        if not self._heard:
            if unconfirmed != text and unconfirmed.startswith(text):
                # pieces of the next block have already come
                self._pieces.append(unconfirmed[len(text) :])
                unconfirmed = text
            self._heard = unconfirmed
        self._catch_up(text)
        self._keep(text)

    def complete(self) -> None:
        """The message or the run has ended: text that came only in pieces counts."""
        if text := "".join(self._pieces):
            self._pieces.clear()
            if self._heard:
                self._catch_up(text)
            self._keep(text)

    def conclude(self, text: str) -> None:
        """Takes the last message's text from a result, and sends it if nothing else has."""
        self.complete()
        if self.silent and text:
            self.add_block("", text)
        self.silent = True

    def _catch_up(self, text: str) -> None:
        """Sends the part of a whole block that the client does not have."""
        if text.startswith(self._heard):
            self._tell(text[len(self._heard) :])
        else:
            self._tell(AGAIN + text)
        self._heard, self._caught_up = "", 0
