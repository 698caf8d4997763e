"""The log of what an application has in it: standard `logging`, below the logger `onrecord`, and never stdout.

An application sees these lines if it asks for them: logging.getLogger("onrecord"). A service passes them on to
structlog, which its own lines go through, by pass_on_to().
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Logger

_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""The levels of `logging`."""

_structured: Callable[[str], Any] | None = None


@cache
def root_logger() -> "Logger":
    """The logger `onrecord`. What has nothing to log need not wait until logging is loaded."""
    import logging

    logger = logging.getLogger("onrecord")
    logger.addHandler(logging.NullHandler())
    return logger


def pass_on_to(get_logger: Callable[[str], Any]) -> None:
    """Sends all lines of this process to the loggers that get_logger makes, such as structlog.get_logger."""
    global _structured
    _structured = get_logger


class Log:
    """A logger of lines that are an event and its fields."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **fields: Any) -> None:
        """Logs a line, as the methods below."""
        self._log("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._log("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._log("error", event, fields)

    def _log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if _structured is not None:
            getattr(_structured(self._name), level)(event, **fields)
            return
        plain, number = root_logger().getChild(self._name), _NUMBERS[level]
        if plain.isEnabledFor(number):
            error = fields.pop("exc_info", None)
            told = " ".join([event, *(f"{key}={value!r}" for key, value in fields.items())])
            plain.log(number, "%s", told, exc_info=error)


def get_logger(name: str) -> Log:
    """The logger of a module."""
    return Log(name)
