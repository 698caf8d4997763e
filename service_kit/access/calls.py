"""The bound on the calls that a service runs at once, whoever makes them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from service_kit.errors import Overloaded
from service_kit.handlers import HEALTH, CallDetails, Handler, HandlerInterceptor, rebuild, within


class Count(Protocol):
    """How many of something there are, of which there may be so many and no more."""

    def try_take(self, limit: int) -> bool:
        """Counts one more, unless there are `limit`; returns whether it did."""
        ...

    def release(self) -> None:
        """Counts one less."""
        ...


class OwnCount:
    """A Count of this process alone."""

    def __init__(self) -> None:
        self._taken = 0

    def try_take(self, limit: int) -> bool:
        """Counts one more, unless there are `limit`; returns whether it did."""
        if self._taken >= limit:
            return False
        self._taken += 1
        return True

    def release(self) -> None:
        """Counts one less."""
        self._taken -= 1


@contextmanager
def _one_of(count: Count, limit: int) -> Iterator[None]:
    """A place while the body runs.

    Raises:
        Overloaded: all are taken.
    """
    if not count.try_take(limit):
        raise Overloaded(f"{limit:,} calls are under way here already: come again later")
    try:
        yield
    finally:
        count.release()


class CallsInterceptor(HandlerInterceptor):
    """Refuses calls beyond those that may run at once. Health has as many places of its own, since it is for everybody.

    It goes behind whoever decides who may call.
    """

    def __init__(self, at_once: int, calls: Count | None = None, health_calls: Count | None = None) -> None:
        """calls, health_calls: who counts them, where other processes have a part in it."""
        self._at_once = at_once
        self._calls, self._health_calls = calls or OwnCount(), health_calls or OwnCount()

    def one(self) -> AbstractContextManager[None]:
        """A place of a call that comes by another way than gRPC. Raises Overloaded."""
        return _one_of(self._calls, self._at_once)

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Has the handler take a place."""
        count = self._health_calls if details.method.startswith(HEALTH) else self._calls
        return rebuild(handler, lambda behaviour: within(behaviour, lambda _: _one_of(count, self._at_once)))
