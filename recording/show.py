"""How a tool's argument is shown on the record. The tool declares it; `redact` applies it."""

from enum import Enum
from typing import Literal

Arguments = Literal["shown", "names", "none"]
"""What a record keeps of arguments: what tools declare; names without any value; only how many and how large."""


class Show(Enum):
    """What a summary shows of an argument. Whatever is shown is redacted and truncated."""

    SHAPE = "shape"
    """Type and size alone, for what may be content."""
    NUMBER = "number"
    """A number or a boolean, unchanged."""
    VALUE = "value"
    """A number unchanged, text as TEXT."""
    TEXT = "text"
    """Text, such as a pattern."""
    WORD = "word"
    """A word or two, such as a mode."""
    PATH = "path"
    """The path of a file."""
    COMMAND = "command"
    """A command line without the data in it."""
    URL = "url"
    """A URL without the values in it."""
