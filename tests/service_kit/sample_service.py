"""A service of the kit's that repeats what it is sent, run as `python -m tests.service_kit.sample_service`."""

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog
from google.protobuf.wrappers_pb2 import StringValue
from pydantic_settings import SettingsConfigDict

from service_kit import run as run_module
from service_kit.access.guard import GuardSettings, open_guard
from service_kit.access.interceptor import rules_for
from service_kit.errors import Context, ErrorInterceptor, Unauthenticated
from service_kit.observing.metrics import new_registry
from service_kit.run import Service, prepare_process, run_service
from service_kit.setting_types import ListenAddress

log = structlog.get_logger(__name__)

NAME = "sample.Sample"

_draining: list[bool] = []


class Unsupported(Exception):
    """An error with a status."""


class UnsupportedHere(Unsupported):
    """An error whose ancestor has a status."""


class ShuttingDown(Exception):
    """What is said while it drains."""


class QueueFull(Exception):
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
    if _draining:
        raise ShuttingDown("the sample is about to end")
    if value == "unknown":
        raise Unauthenticated("no token came")
    if value == "unwanted":
        raise UnsupportedHere("this is not wanted here")
    if value.startswith("long "):
        raise UnsupportedHere(f"{value} ends here")
    if value == "kill a thread":
        threading.Thread(target=lambda: [][0], name="frail").start()
    if value == "hold the interpreter":
        log.info("sample.holding")
        await asyncio.sleep(0.1)
        re.match(r"(a+)+$", "a" * 64 + "b")
    if value == "full":
        raise QueueFull("there is no room")
    if value.startswith("crash"):
        raise RuntimeError(value)
    if value == "abort":
        await context.abort(grpc.StatusCode.DATA_LOSS, "aborted by the handler")
    if value == "hang":
        log.info("sample.hanging")
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
    statuses = {
        Unsupported: grpc.StatusCode.FAILED_PRECONDITION,
        QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
        ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    }
    return ErrorInterceptor(statuses, retry_after_seconds={QueueFull: 1.5})


class SampleSettings(GuardSettings):
    """The settings of both services, under a prefix of the sample's."""

    model_config = SettingsConfigDict(env_prefix="SAMPLE_")
    listen: ListenAddress = "127.0.0.1:0"


async def _fit() -> str:
    return ""


def main() -> None:
    """Serves until a signal comes."""
    settings = SampleSettings()
    prepare_process(settings)
    run_module.FORCE_AFTER_SECONDS = 1.0
    run_module.KILL_AFTER_SECONDS = 4

    def begin_drain() -> None:
        _draining.append(True)

    service = Service((NAME,), add_sample, sample_interceptor(), _fit, begin_drain)
    guard = open_guard(settings, rules_for(NAME, {}))
    asyncio.run(run_service(service, settings, guard, new_registry()))


if __name__ == "__main__":
    main()
