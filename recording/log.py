"""The log of what an application has in it: standard `logging`, below the logger `onrecord`, and never stdout.

An application sees these lines if it asks for them: logging.getLogger("onrecord"). A service passes them on to
structlog, which its own lines go through, by pass_on_to().
"""

import logging
from collections.abc import Callable
from typing import Any

ROOT = logging.getLogger("onrecord")
ROOT.addHandler(logging.NullHandler())

_structured: Callable[[str], Any] | None = None


def pass_on_to(get_logger: Callable[[str], Any]) -> None:
    """Sends all lines of this process to the loggers that get_logger makes, such as structlog.get_logger."""
    global _structured
    _structured = get_logger


class Log:
    """A logger of lines that are an event and its fields."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain = ROOT.getChild(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Logs a line, as the methods below."""
        self._log("debug", logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._log("info", logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log("warning", logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._log("error", logging.ERROR, event, fields)

    def _log(self, level: str, number: int, event: str, fields: dict[str, Any]) -> None:
        if _structured is not None:
            getattr(_structured(self._name), level)(event, **fields)
        elif self._plain.isEnabledFor(number):
            error = fields.pop("exc_info", None)
            told = " ".join([event, *(f"{key}={value!r}" for key, value in fields.items())])
            self._plain.log(number, "%s", told, exc_info=error)


def get_logger(name: str) -> Log:
    """The logger of a module."""
    return Log(name)
