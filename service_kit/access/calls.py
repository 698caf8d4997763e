"""The bound on the calls that a service runs at once, whoever makes them."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from service_kit.errors import Overloaded
from service_kit.handlers import Behaviour, Context, Handler, rebuild

_HEALTH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/"


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


class CallsInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls beyond those that may run at once. Health has as many places of its own, since it is for everybody.

    It goes behind whoever decides who may call.
    """

    def __init__(self, at_once: int) -> None:
        self._places, self._health_places = _Places(at_once), _Places(at_once)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Has the handler take a place."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        places = self._health_places if handler_call_details.method.startswith(_HEALTH) else self._places

        def around(behaviour: Behaviour) -> Behaviour:
            if inspect.isasyncgenfunction(behaviour):

                async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
                    with places.one():
                        async with aclosing(behaviour(request, context)) as responses:
                            async for response in responses:
                                yield response

                return stream

            async def single(request: Any, context: Context) -> Any:
                with places.one():
                    return await behaviour(request, context)

            return single

        return rebuild(handler, around)
