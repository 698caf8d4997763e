"""The new part of each piece of a text."""

LEAST_DIFFERENT_CHARACTERS = 4
"""What has fewer may come again by chance: indentation, a rule of dashes, `haha`."""


class SoFar:
    """Finds what is new in each piece, where a server sends all of the text so far in each, as DashScope's does.

    It does as long as each piece begins with the one before it; the pieces of other servers do not.
    """

    def __init__(self) -> None:
        self._last = ""
        self._grows = True
        self._is_sure = False

    def new(self, piece: str) -> str:
        """The part of the next piece that has not been in an earlier one."""
        if not self._grows or not piece:
            return piece
        last, self._last = self._last, piece
        self._grows = piece.startswith(last)
        if self._grows and not self._is_sure and len(piece) > len(last):
            self._is_sure = len(set(last)) >= LEAST_DIFFERENT_CHARACTERS
        return piece.removeprefix(last) if self._is_sure else piece
