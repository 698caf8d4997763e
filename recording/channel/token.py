"""A token from a file, which is reloaded when it changes, and the metadata that carries it."""

from collections.abc import Sequence
from pathlib import Path

from recording.channel.watched import Watched, WrongFile

Metadata = Sequence[tuple[str, str]]


def watch_token(path: Path) -> Watched[str]:
    """Watches a file that holds a token and nothing else.

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
    """The metadata of a call with this token."""
    return (("authorization", f"Bearer {token}"),)
