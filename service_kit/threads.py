"""Threads that died: a service that lost one cannot do all its work, and says so."""

import threading
import traceback

import structlog

log = structlog.get_logger(__name__)

_died: list[str] = []


def watch_threads() -> None:
    """From now on a thread that ends by an exception is logged, without values, and remembered."""
    threading.excepthook = _remember


def died_threads() -> str:
    """Which threads died, for people; empty while none has."""
    return f"threads died: {', '.join(_died)}" if _died else ""


def _remember(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread else "unknown"
    _died.append(name)
    frames = "".join(traceback.format_tb(args.exc_traceback))
    log.error("thread.died", thread=name, error=args.exc_type.__qualname__, traceback=frames)
