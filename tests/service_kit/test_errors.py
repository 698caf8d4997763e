"""What a handler raises, and what its client is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from service_kit.errors import ErrorInterceptor
from service_kit.server import build_server
from tests.service_kit.sample_service import NAME, add_sample, sample_interceptor
from tests.support.grpc_server import started

METHODS = ["Repeat", "RepeatTwice", "RepeatAll"]


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = build_server([sample_interceptor()])
    add_sample(server)
    async with started(server) as address, grpc.aio.insecure_channel(address) as channel:
        yield channel


def start(channel: grpc.aio.Channel, method: str, payload: Any) -> Any:
    name = f"/{NAME}/{method}"
    if method == "Repeat":
        return channel.unary_unary(name)(payload)
    if method == "RepeatTwice":
        return channel.unary_stream(name)(payload)
    return channel.stream_stream(name)(iter([payload]))


async def call(channel: grpc.aio.Channel, method: str, payload: bytes) -> list[bytes]:
    started = start(channel, method, payload)
    return [await started] if method == "Repeat" else await read(started)


async def read(started: Any) -> list[bytes]:
    return [answer async for answer in started]


async def refusal(channel: grpc.aio.Channel, method: str, value: str) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, method, StringValue(value=value).SerializeToString())
    return refused.value


@pytest.mark.parametrize("method", METHODS)
async def test_a_handler_that_raises_nothing_is_untouched(channel, method):
    payload = StringValue(value="fine").SerializeToString()
    assert await call(channel, method, payload) == [payload] * (2 if method == "RepeatTwice" else 1)


@pytest.mark.parametrize("method", METHODS)
async def test_an_error_has_the_status_of_its_nearest_ancestor_and_its_own_sentence(channel, method):
    error = await refusal(channel, method, "unwanted")
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "this is not wanted here")


@pytest.mark.parametrize("method", METHODS)
async def test_an_error_that_passes_tells_when_to_try_again(channel, method):
    error = await refusal(channel, method, "full")
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(error)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("QUEUE_FULL", "onrecord.dev")
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


async def test_the_reason_is_that_of_the_nearest_ancestor_that_the_protos_list(channel):
    status = rpc_status.from_call(await refusal(channel, "Repeat", "unwanted"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "UNSUPPORTED"
    with pytest.raises(ValueError, match="LookupError has no reason"):
        ErrorInterceptor({LookupError: grpc.StatusCode.NOT_FOUND})


@pytest.mark.parametrize("method", METHODS)
async def test_an_unexpected_error_tells_a_reference_that_the_log_has_and_neither_tells_content(channel, method):
    with capture_logs() as logged:
        error = await refusal(channel, method, "crash: hunter2")
    assert error.code() == grpc.StatusCode.INTERNAL
    (event,) = [event for event in logged if event["event"] == "rpc.failed"]
    assert event["reference"] in str(error.details())
    assert event["error"] == "RuntimeError"
    assert "_react" in event["traceback"]
    assert "hunter2" not in f"{error.details()}{event}"


@pytest.mark.parametrize("method", METHODS)
async def test_a_handlers_own_abort_is_untouched(channel, method):
    with capture_logs() as logged:
        error = await refusal(channel, method, "abort")
    assert logged == []
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "aborted by the handler")


@pytest.mark.parametrize("method", METHODS)
async def test_bytes_that_are_no_message_are_the_callers_error(channel, method):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, method, b"\x0a\xff")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", METHODS)
async def test_a_cancelled_call_is_no_error_of_the_service(channel, method):
    with capture_logs() as logged:
        started = start(channel, method, StringValue(value="sleep").SerializeToString())
        if method != "Repeat":
            started = asyncio.ensure_future(read(started))
        while not logged:
            await asyncio.sleep(0.01)
        started.cancel()
        with pytest.raises(asyncio.CancelledError):
            await started
        assert await call(channel, method, b"") == [b""] * (2 if method == "RepeatTwice" else 1)
    assert [event["event"] for event in logged] == ["sample.sleeping"]
