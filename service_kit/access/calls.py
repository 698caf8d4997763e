"""The bound on the calls that a service runs at once, whoever makes them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from service_kit.errors import Overloaded
from service_kit.handlers import HEALTH, CallDetails, Handler, HandlerInterceptor, rebuild, within


class _Places:
    def __init__(self, number: int) -> None:
        self._number = number
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place while the body runs.

        Raises:
            Overloaded: all are taken.
        """
        if self._taken >= self._number:
            raise Overloaded(f"{self._number:,} calls are under way here already: come again later")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class CallsInterceptor(HandlerInterceptor):
    """Refuses calls beyond those that may run at once. Health has as many places of its own, since it is for everybody.

    It goes behind whoever decides who may call.
    """

    def __init__(self, at_once: int) -> None:
        self._places, self._health_places = _Places(at_once), _Places(at_once)

    def one(self) -> AbstractContextManager[None]:
        """A place of a call that comes by another way than gRPC. Raises Overloaded."""
        return self._places.one()

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Has the handler take a place."""
        places = self._health_places if details.method.startswith(HEALTH) else self._places
        return rebuild(handler, lambda behaviour: within(behaviour, lambda _: places.one()))
