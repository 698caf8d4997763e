"""Gives up connections, whatever they wait for: a server that stands still says neither yes nor no."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from audit_svc.errors import StoreUnavailable


class Closable(Protocol):
    """A connection."""

    def close(self) -> None:
        """Closes it, while nobody uses it."""
        ...


T = TypeVar("T", bound=Closable)


class CancelToken:
    """Of who opens connections. When it is cancelled they end under whatever waits for them, and no other is opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._opening: set[Future[Any]] = set()
        self._cuts: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()

    def cancel(self) -> None:
        """Once and for all. From any thread, and without waiting."""
        with self._lock:
            self._is_cancelled = True
            for opening in self._opening:
                opening.cancel()
            for opened, cut in self._cuts.items():
                cut(opened)

    def open(self, connect: Callable[[], T], cut: Callable[[T], None]) -> T:
        """What connect returns or raises, in a thread that is left to its end when this is cancelled.

        The driver can end no attempt to connect, and makes one after the other where there are several hosts.

        cut: ends a connection under whatever waits for it, from any thread.

        Raises StoreUnavailable: it is cancelled.
        """
        opening: Future[T] = Future()
        with self._lock:
            if self._is_cancelled:
                raise _cancelled()
            self._opening.add(opening)
        try:
            threading.Thread(target=_open, args=(connect, opening), name="audit-connecting", daemon=True).start()
            opened = opening.result()
        except CancelledError:
            raise _cancelled() from None
        finally:
            with self._lock:
                self._opening.discard(opening)
        with self._lock:
            if not self._is_cancelled:
                self._cuts[opened] = cut
                return opened
        opened.close()
        raise _cancelled()


def _open(connect: Callable[[], T], opening: "Future[T]") -> None:
    try:
        opened = connect()
    except BaseException as error:  # noqa: BLE001 - who waits must hear it
        with suppress(InvalidStateError):
            opening.set_exception(error)
        return
    try:
        opening.set_result(opened)
    except InvalidStateError:  # nobody waits any more
        opened.close()


def _cancelled() -> StoreUnavailable:
    return StoreUnavailable("the connection to the ledger's database was given up")
