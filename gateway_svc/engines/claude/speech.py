"""The text of the main conversation: what the client has heard of it, and what the conversation keeps.

A message comes in pieces, and each of its blocks once more as a whole, which is what counts. When the model's stream
breaks off, the program asks again, streamed or not, and the new message has another id: the client hears what it has
not heard yet, or, where the new text is another one, a sign and all of it.
"""

from collections.abc import Callable

AGAIN = "\n\n[The answer was cut off. It begins again:]\n\n"


class Speech:
    """What was said in one run."""

    def __init__(self, tell: Callable[[str], None], keep: Callable[[str], None]) -> None:
        """`tell` is given the client's text, piece by piece, and `keep` each whole block."""
        self._tell = tell
        self._keep = keep
        self._message_id = ""
        self._pieces: list[str] = []
        """The text of this message that no whole block has confirmed yet."""
        self._heard = ""
        """What the client heard of a message that was given up, as far as this one has not come to it."""
        self.silent = True
        """Whether nothing was said since the last result."""

    def begin(self, message_id: str, *, anew: bool = False) -> None:
        """A line of this message, or, with `anew`, its first piece. What is unconfirmed of another one was given up."""
        if message_id == self._message_id and not anew:
            return
        self._message_id = message_id
        unconfirmed = "".join(self._pieces)
        self._pieces.clear()
        if len(unconfirmed) > len(self._heard):
            self._heard = unconfirmed

    def add_piece(self, piece: str) -> None:
        """A piece of a block that goes on."""
        self._pieces.append(piece)
        self.silent &= not piece
        if self._heard:
            self._catch_up("".join(self._pieces), whole=False)
        else:
            self._tell(piece)

    def add_block(self, message_id: str, text: str) -> None:
        """A whole block."""
        if message_id:
            self.begin(message_id)
        self.silent &= not text
        unconfirmed = "".join(self._pieces)
        self._pieces.clear()
        if not self._heard:
            if unconfirmed != text and unconfirmed.startswith(text):
                # the pieces of the next block have come already
                self._pieces.append(unconfirmed[len(text) :])
                unconfirmed = text
            self._heard = unconfirmed
        self._catch_up(text, whole=True)
        self._keep(text)

    def complete(self) -> None:
        """The message has ended well, or the run has ended: what came of it in pieces alone counts."""
        if text := "".join(self._pieces):
            self._pieces.clear()
            if self._heard:
                self._catch_up(text, whole=True)
            self._keep(text)

    def conclude(self, text: str) -> None:
        """A result came, with the last message's text: it is told where nothing else has told it."""
        self.complete()
        if self.silent and text:
            self.add_block("", text)
        self.silent = True

    def _catch_up(self, text: str, *, whole: bool) -> None:
        """Tells what of `text` the client has not heard."""
        if text.startswith(self._heard):
            self._tell(text[len(self._heard) :])
        elif whole or not self._heard.startswith(text):
            self._tell(AGAIN + text)
        else:
            return
        self._heard = ""
