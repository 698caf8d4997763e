"""A service of the kit's that repeats what it is sent, run as `python -m tests.service_kit.sample_service LISTEN`."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from google.protobuf.wrappers_pb2 import StringValue

from service_kit import server as server_module
from service_kit.errors import Context, ErrorInterceptor
from service_kit.observing.logs import configure_logging
from service_kit.server import add_health, build_server, serve

log = structlog.get_logger(__name__)

NAME = "sample.Sample"


class Unwanted(Exception):
    """An error with a status."""


class UnwantedHere(Unwanted):
    """An error whose ancestor has a status."""


class Full(Exception):
    """An error with a status and a RetryInfo."""


async def repeat(request: StringValue, context: Context) -> StringValue:
    """Answers with the request, or with the error that it names."""
    await _react(request.value, context)
    return request


async def repeat_twice(request: StringValue, context: Context) -> AsyncIterator[StringValue]:
    """Answers with the request, then does as repeat()."""
    yield request
    await _react(request.value, context)
    yield request


async def repeat_all(requests: AsyncIterator[StringValue], context: Context) -> AsyncIterator[StringValue]:
    """Answers each request as repeat() does."""
    async for request in requests:
        await _react(request.value, context)
        yield request


async def _react(value: str, context: Context) -> None:
    if value == "unwanted":
        raise UnwantedHere("this is not wanted here")
    if value == "full":
        raise Full("there is no room")
    if value.startswith("crash"):
        raise RuntimeError(value)
    if value == "abort":
        await context.abort(grpc.StatusCode.DATA_LOSS, "aborted by the handler")
    if value == "hang":
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
    if value == "sleep":
        log.info("sample.sleeping")
        await asyncio.sleep(60)


def add_sample(server: grpc.aio.Server) -> None:
    """Adds the methods Repeat, RepeatTwice and RepeatAll to server."""
    codec: Any = {"request_deserializer": StringValue.FromString, "response_serializer": StringValue.SerializeToString}
    handlers: dict[str, Any] = {
        "Repeat": grpc.unary_unary_rpc_method_handler(repeat, **codec),
        "RepeatTwice": grpc.unary_stream_rpc_method_handler(repeat_twice, **codec),
        "RepeatAll": grpc.stream_stream_rpc_method_handler(repeat_all, **codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


def sample_interceptor() -> ErrorInterceptor:
    """Maps the errors of the sample."""
    statuses = {Unwanted: grpc.StatusCode.FAILED_PRECONDITION, Full: grpc.StatusCode.RESOURCE_EXHAUSTED}
    return ErrorInterceptor(statuses, retry_after_seconds={Full: 1.5})


async def main(listen: str) -> None:
    """Serves until a signal comes."""
    configure_logging("info", "json")
    server = build_server([sample_interceptor()])
    add_sample(server)
    health = await add_health(server, [NAME])
    server_module._FORCE_AFTER_SECONDS = 1.0
    await serve(server, health, listen=listen, grace_seconds=float(sys.argv[2]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
