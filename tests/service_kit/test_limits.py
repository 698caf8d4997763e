"""What one client may take, and that others are served meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from service_kit.access.limits import LimitSettings, RateInterceptor
from service_kit.errors import RateExceeded
from service_kit.health import Health
from service_kit.server import answering, build_server
from tests.service_kit.sample_service import NAME, add_sample, sample_interceptor
from tests.support.grpc_server import started

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> str:
            limits = LimitSettings(**settings)
            rate = [RateInterceptor(limits.rate_per_second)] if limits.rate_per_second else []
            server = build_server([sample_interceptor(), *rate], limits.server_options())
            add_sample(server)
            health_pb2_grpc.add_HealthServicer_to_server(Health([NAME]), server)
            return await stack.enter_async_context(started(server))

        yield start


def repeat(channel: grpc.aio.Channel, value: str) -> Any:
    method: Any = channel.unary_unary(f"/{NAME}/Repeat", StringValue.SerializeToString, StringValue.FromString)
    return method(StringValue(value=value), timeout=30)


async def test_a_message_may_be_as_large_as_the_setting_says(serve):
    address = await serve(max_message_bytes=2**20)
    async with grpc.aio.insecure_channel(address) as channel:
        assert await repeat(channel, "x" * (2**20 - 100))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await repeat(channel, "x" * 2**20)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_beyond_the_concurrent_streams_of_a_connection_wait(serve):
    address = await serve(max_concurrent_streams=2)
    async with grpc.aio.insecure_channel(address) as channel:
        assert await repeat(channel, "ready")
        sleeping = [repeat(channel, "sleep") for _ in range(2)]
        await asyncio.sleep(0.2)
        waiting = asyncio.ensure_future(repeat(channel, "third"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        sleeping[0].cancel()
        assert (await waiting).value == "third"
        sleeping[1].cancel()


async def test_a_connection_that_is_old_enough_is_closed_and_the_client_connects_anew(serve):
    address = await serve(max_connection_age_seconds=0.2, max_connection_age_grace_seconds=5)
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(30):
        assert await repeat(channel, "first")
        while channel.get_state() is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert (await repeat(channel, "again")).value == "again"


async def test_a_stream_that_outlasts_the_grace_of_its_connection_is_ended(serve):
    address = await serve(max_connection_age_seconds=0.1, max_connection_age_grace_seconds=0.1)
    async with grpc.aio.insecure_channel(address) as channel:
        opens: Any = channel.unary_stream(f"/{NAME}/RepeatTwice")
        call = opens(StringValue(value="sleep").SerializeToString())
        assert await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", ["Repeat", "RepeatTwice"])
async def test_a_caller_beyond_its_rate_is_told_when_to_come_again_and_health_is_not_counted(serve, method):
    address = await serve(rate_per_second=2)
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)

        opens: Any = channel.unary_unary if method == "Repeat" else channel.unary_stream

        async def call_often() -> None:
            for _ in range(50):
                opened = opens(f"/{NAME}/{method}")(b"")
                await (opened if method == "Repeat" else opened.read())

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call_often()
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        status, retry = rpc_status.from_call(cast(Any, refused.value)), error_details_pb2.RetryInfo()
        assert status is not None
        assert status.details[1].Unpack(retry)
        assert 0 < retry.retry_delay.ToMilliseconds() <= 500
        pushback = dict(refused.value.trailing_metadata() or ())["grpc-retry-pushback-ms"]
        assert int(pushback) == retry.retry_delay.ToMilliseconds()
        for _ in range(20):
            assert await health.Check(health_pb2.HealthCheckRequest())


def test_each_caller_has_a_bucket_that_fills_with_time():
    now = 0.0
    rate = RateInterceptor(4, now=lambda: now)
    for who in ("ada", "bob"):
        for _ in range(4):
            rate.take(who)
        with pytest.raises(RateExceeded) as refused:
            rate.take(who)
        assert refused.value.retry_after_seconds == 0.25
    now = 0.25
    rate.take("ada")
    with pytest.raises(RateExceeded):
        rate.take("ada")


def test_callers_that_came_once_are_forgotten():
    now = 0.0
    rate = RateInterceptor(1, now=lambda: now)
    for number in range(30_000):
        now = float(number)
        rate.take(str(number))
    assert len(rate._buckets) <= 10_000


@pytest.mark.parametrize("method", ["RepeatTwice", "RepeatAll"])
async def test_a_request_of_too_many_parts_is_refused_and_so_is_a_later_one_of_a_stream(method):
    server = build_server(answering(sample_interceptor(), []))
    add_sample(server)
    many = b"\x10\x01" * 40_000
    async with started(server) as address, grpc.aio.insecure_channel(address) as channel:
        calls: Any = channel
        if method == "RepeatTwice":
            call = calls.unary_stream(f"/{NAME}/{method}")(many)
        else:
            call = calls.stream_stream(f"/{NAME}/{method}")()
            await call.write(b"")
            assert await call.read() == b""
            await call.write(many)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
