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
        self.silent = True
        """Whether there was no text since the last result."""

    def begin(self, message_id: str, *, anew: bool = False) -> None:
        """A line of this message or, with `anew`, its first piece. Unconfirmed text of another message is abandoned."""
        if message_id == self._message_id and not anew:
            return
        self._message_id = message_id
        unconfirmed = "".join(self._pieces)
        self._pieces.clear()
        if len(unconfirmed) > len(self._heard):
            self._heard = unconfirmed

    def add_piece(self, piece: str) -> None:
        """Takes a piece of the current block."""
        self._pieces.append(piece)
        self.silent &= not piece
        if self._heard:
            self._catch_up("".join(self._pieces), whole=False)
        else:
            self._tell(piece)

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
        self._catch_up(text, whole=True)
        self._keep(text)

    def complete(self) -> None:
        """The message or the run has ended: text that came only in pieces counts."""
        if text := "".join(self._pieces):
            self._pieces.clear()
            if self._heard:
                self._catch_up(text, whole=True)
            self._keep(text)

    def conclude(self, text: str) -> None:
        """Takes the last message's text from a result, and sends it if nothing else has."""
        self.complete()
        if self.silent and text:
            self.add_block("", text)
        self.silent = True

    def _catch_up(self, text: str, *, whole: bool) -> None:
        """Sends the part of `text` that the client does not have."""
        if text.startswith(self._heard):
            self._tell(text[len(self._heard) :])
        elif whole or not self._heard.startswith(text):
            self._tell(AGAIN + text)
        else:
            return
        self._heard = ""
