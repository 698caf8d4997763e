"""A token from a file, which is read again when it changes, and how a call shows it."""

from collections.abc import Sequence
from pathlib import Path

from recording.channel.watched import Watched, WrongFile

Metadata = Sequence[tuple[str, str]]


def watch_token(path: Path) -> Watched[str]:
    """The token in a file that holds nothing else.

    Raises:
        WrongFile: it cannot be read, is empty, or holds more than one word.
    """

    def load(contents: Sequence[bytes]) -> str:
        words = contents[0].decode(errors="replace").split()
        if len(words) != 1 or not words[0].isascii():
            raise WrongFile(f"{path}: must hold a token and nothing else")
        return words[0]

    return Watched([path], load)


def token_metadata(token: str) -> Metadata:
    """What a call carries to show token."""
    return (("authorization", f"Bearer {token}"),)
