"""Logs: structlog to stderr, one event a line, the standard library's loggers through the same renderer."""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from enum import Enum
from typing import Literal, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from recording import log
from service_kit.observing.log_writer import LogWriter

LogStyle = Literal["auto", "json", "console"]
"""auto: console where stderr is a terminal, which people read, else json."""
LogLevel = Literal["debug", "info", "warning", "error"]

STDERR = 2
LIMITED_EVENTS = ("rpc.refused", "rpc.denied")
"""Those that a stranger can cause by calling: without a limit they could fill a disk."""
LIMITED_PER_SECOND = 20


def configure_logging(level: LogLevel, style: LogStyle) -> LogWriter:
    """Sends every log event of level and above to stderr, by a thread, and returns what writes.

    Other libraries log through the standard library; they are heard from WARNING on, without what they quote of others.
    Exceptions are told by their types and places: their messages and local variables may hold content.
    """
    stream = LogWriter(STDERR)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    style = "console" if for_people(style) else "json"
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[EventLimit(LIMITED_EVENTS, LIMITED_PER_SECOND), *shared, *_rendering(style)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),  # type: ignore[arg-type]  # it calls write and flush
        cache_logger_on_first_use=True,
    )
    log.pass_on_to(structlog.get_logger)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(style)],
        )
    )
    handler.addFilter(_without_quotes)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    logging.captureWarnings(True)
    return stream


def for_people(style: LogStyle) -> bool:
    """Whether lines are written for people."""
    return style == "console" or (style == "auto" and os.isatty(STDERR))


class EventLimit:
    """A processor that lets so many lines of an event a second through; the next line tells how many it left out."""

    def __init__(self, events: tuple[str, ...], per_second: int) -> None:
        self._per_second = per_second
        self._lock = threading.RLock()
        self._second = dict.fromkeys(events, 0)
        self._lines = dict.fromkeys(events, 0)
        self._left_out = dict.fromkeys(events, 0)

    def __call__(self, logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
        """Passes an event on.

        Raises:
            structlog.DropEvent: there were too many of it in this second.
        """
        event = event_dict.get("event", "")
        if event not in self._lines:
            return event_dict
        now = int(time.monotonic())
        with self._lock:
            if self._second[event] != now:
                self._second[event], self._lines[event] = now, 0
            if self._lines[event] >= self._per_second:
                self._left_out[event] += 1
                raise structlog.DropEvent
            self._lines[event] += 1
            left_out, self._left_out[event] = self._left_out[event], 0
        if left_out:
            event_dict["left_out"] = left_out
        return event_dict


def describe_exception(error: BaseException) -> dict[str, str]:
    """What may be logged of an exception, as fields: `error`, its type, with the system's own words where it has some,
    and `traceback`, where it and what led to it were raised.
    """
    said = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    parts, link, seen = [], cast(BaseException | None, error), set[int]()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        parts.append(f"{type(link).__qualname__}:\n{''.join(traceback.format_tb(link.__traceback__))}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return {"error": f"{type(error).__qualname__}{said}", "traceback": "".join(parts)}


def _tell_exception(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    """A processor that puts what may be logged in the place of exc_info."""
    given = event_dict.pop("exc_info", None)
    event_dict.pop("exception", None)
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else None
    error = error or (sys.exc_info()[1] if given else None)
    return {**event_dict, **describe_exception(error)} if error else event_dict


def _without_quotes(record: logging.LogRecord) -> bool:
    """A filter that leaves of a library's message its own words and numbers: a peer's error text may be quoted in it.

    Warnings of Python are about code.
    """
    if record.name != "py.warnings":
        template = str(record.msg).partition("\n")[0]
        try:
            args = record.args
            quoted = {k: _number(v) for k, v in args.items()} if isinstance(args, Mapping) else map(_number, args or ())
            record.msg = template % (quoted if isinstance(quoted, dict) else tuple(quoted)) if args else template
        except (TypeError, ValueError, KeyError):
            record.msg = template
        record.args = ()
    return True


def _number(value: object) -> object:
    return value if isinstance(value, int | float | Enum) else "…"


def _rendering(style: LogStyle) -> list[Processor]:
    if style == "console":
        colors = sys.stderr is not None and sys.stderr.isatty()
        return [_tell_exception, structlog.dev.ConsoleRenderer(colors=colors)]
    return [_tell_exception, structlog.processors.JSONRenderer()]
