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
    return Watched([path], lambda contents: check_token(path, contents[0]))


def check_token(path: Path, content: bytes) -> str:
    """The token in the content of the file at path. Raises WrongFile where it is not one word of printable ASCII."""
    words = content.decode(errors="replace").split()
    if len(words) != 1 or not (words[0].isascii() and words[0].isprintable()):
        raise WrongFile(path, "must hold a token and nothing else")
    return words[0]


def token_metadata(token: str) -> Metadata:
    """What a call carries to show token."""
    return (("authorization", f"Bearer {token}"),)
