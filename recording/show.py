"""How a tool's argument is shown on the record. Who offers a tool says it; `redact` does it."""

from enum import Enum


class Show(Enum):
    """What a summary has of an argument. Whatever is shown is redacted and cut."""

    SHAPE = "shape"
    """Its type and size: what may be content."""
    NUMBER = "number"
    """A number or a truth value, as it is."""
    VALUE = "value"
    """A number as it is, text as TEXT."""
    TEXT = "text"
    """Text, such as a pattern."""
    WORD = "word"
    """Text that is a word or two, such as a mode."""
    PATH = "path"
    """The path of a file."""
    COMMAND = "command"
    """A command line, without data that it holds."""
    URL = "url"
    """A URL, without the values in it."""
