"""Who is let in, who is not, what each is told, and what happens to those who are taken off the list."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from recording.channel.watched import Watched
from service_kit.access.interceptor import AccessInterceptor, rules_for
from service_kit.access.roles import Callers, Entry, Role, load_callers, make_token
from service_kit.health import Health
from service_kit.server import add_reflection, bind, build_server
from tests.service_kit.sample_service import NAME, add_sample, sample_interceptor

READERS = frozenset({Role.READER})
ONE_WAY = "sample.OneWay"


class Guarded:
    def __init__(self, path: Path, channel: grpc.aio.Channel, access: AccessInterceptor) -> None:
        self.path = path
        self.access = access
        self.channel = channel
        self.tables: dict[str, str] = {}
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.to_tell: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for request in requests:
            self.heard.put_nowait(request)
        return b""

    async def tell(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield await self.to_tell.get()

    def add(self, name: str, role: Role) -> str:
        token, self.tables[name] = make_token(name, [role])
        self._write()
        return token

    def remove(self, name: str) -> None:
        del self.tables[name]
        self._write()

    def _write(self) -> None:
        self.path.write_text("\n".join(self.tables.values()))

    async def call(self, method: str, metadata: Any, payload: bytes | None = None) -> list[bytes]:
        payload = StringValue(value="in").SerializeToString() if payload is None else payload
        name, channel = f"/{NAME}/{method}", cast(Any, self.channel)
        if method == "Repeat":
            return [await channel.unary_unary(name)(payload, metadata=metadata)]
        kind = channel.unary_stream(name) if method == "RepeatTwice" else channel.stream_stream(name)
        request: Any = payload if method == "RepeatTwice" else iter([payload])
        return [answer async for answer in kind(request, metadata=metadata)]

    async def open_silently(self, metadata: Any) -> None:
        """Writes nothing: a write that meets the refusal would hide it (grpc/grpc#36066)."""
        await self.channel.stream_stream(f"/{NAME}/RepeatAll")(metadata=metadata).read()

    async def refusal(self, method: str, metadata: Any, payload: bytes | None = None) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (self.open_silently(metadata) if method == "RepeatAll" else self.call(method, metadata, payload))
        status, info = rpc_status.from_call(cast(Any, refused.value)), error_details_pb2.ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert info.domain == "onrecord.dev"
        return refused.value.code(), info.reason


def bearer(token: str) -> Any:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    path = tmp_path / "callers.toml"
    path.write_text("")
    rules = {
        **rules_for(NAME, {"Repeat": READERS, "RepeatTwice": READERS, "RepeatAll": READERS}),
        **rules_for(ONE_WAY, {"Hear": READERS, "Tell": READERS}),
    }
    access = AccessInterceptor(rules, Watched([path], partial(load_callers, path)))
    server = build_server([sample_interceptor(), access])
    channel = grpc.aio.insecure_channel(bind(server, "127.0.0.1:0"))
    guarded = Guarded(path, channel, access)
    one_way: dict[str, Any] = {
        "Hear": grpc.stream_unary_rpc_method_handler(guarded.hear),
        "Tell": grpc.unary_stream_rpc_method_handler(guarded.tell),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ONE_WAY, one_way),))
    add_sample(server)
    health_pb2_grpc.add_HealthServicer_to_server(Health([NAME]), server)
    add_reflection(server, [NAME])
    await server.start()
    async with channel:
        yield guarded
    await server.stop(None)


METHODS = ["Repeat", "RepeatTwice", "RepeatAll"]


@pytest.mark.parametrize("method", METHODS)
async def test_only_a_known_token_with_the_role_gets_in(guarded, method):
    reader, producer = guarded.add("ada", Role.READER), guarded.add("gateway", Role.PRODUCER)
    assert await guarded.call(method, bearer(reader))
    assert await guarded.call(method, (("authorization", f"bearer {reader}"),))
    others = ((("authorization", f"{scheme} {reader}"),) for scheme in ("Basic", "Secret"))  # one is as long as Bearer
    for metadata in (
        None,
        bearer("guessed"),
        bearer(""),
        bearer(reader) + bearer(producer),
        bearer(reader) * 2,
        *others,
    ):
        assert await guarded.refusal(method, metadata) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    denied = await guarded.refusal(method, bearer(producer))
    assert denied == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_what_has_no_rule_is_for_nobody(guarded):
    guarded.access._rules = {}
    for role in Role:
        denied = await guarded.refusal("Repeat", bearer(guarded.add(f"with-{role}", role)))
        assert denied == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), role


@pytest.mark.parametrize("method", METHODS)
async def test_who_is_not_let_in_is_refused_before_the_request_is_read(guarded, method):
    assert await guarded.refusal(method, None, b"\x0a\xff") == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_a_token_counts_from_its_table_on_and_no_longer(guarded):
    token = guarded.add("ada", Role.READER)
    assert await guarded.call("Repeat", bearer(token))
    guarded.remove("ada")
    assert await guarded.refusal("Repeat", bearer(token)) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_a_running_stream_ends_when_its_token_is_taken_away(guarded):
    token = guarded.add("ada", Role.READER)
    call: Any = guarded.channel.stream_stream(f"/{NAME}/RepeatAll")(metadata=bearer(token))
    await call.write(b"")
    assert await call.read() == b""
    guarded.add("bob", Role.READER)
    await call.write(b"")
    assert await call.read() == b"", "another's token changes nothing for this one"
    guarded.remove("ada")
    await call.write(b"")
    assert await call.code() == grpc.StatusCode.UNAUTHENTICATED


async def _open_one_way(guarded: Guarded, token: str) -> tuple[Any, Any]:
    """A call that only listens and one that only speaks, with one message each behind them."""
    channel = cast(Any, guarded.channel)
    hearing = channel.stream_unary(f"/{ONE_WAY}/Hear")(metadata=bearer(token))
    telling = channel.unary_stream(f"/{ONE_WAY}/Tell")(b"", metadata=bearer(token))
    await hearing.write(b"first")
    assert await guarded.heard.get() == b"first"
    guarded.to_tell.put_nowait(b"first")
    assert await telling.read() == b"first"
    return hearing, telling


async def _both_end(guarded: Guarded, hearing: Any, telling: Any) -> None:
    guarded.to_tell.put_nowait(b"second")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await telling.read()
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    await hearing.write(b"second")
    heard, ended = asyncio.create_task(guarded.heard.get()), asyncio.create_task(hearing.code())
    await asyncio.wait({heard, ended}, return_when=asyncio.FIRST_COMPLETED)
    assert not heard.done()
    heard.cancel()
    assert await ended == grpc.StatusCode.UNAUTHENTICATED


async def test_nothing_more_is_heard_from_and_nothing_told_to_who_is_taken_off_the_list(guarded):
    """Each way has its own check: a stream that only listens, and one that only speaks, ends."""
    streams = await _open_one_way(guarded, guarded.add("ada", Role.READER))
    guarded.remove("ada")
    await _both_end(guarded, *streams)


async def test_nothing_more_is_heard_from_and_nothing_told_to_whose_token_expires_meanwhile(guarded, monkeypatch):
    streams = await _open_one_way(guarded, guarded.add("ada", Role.READER))
    monkeypatch.setattr(Entry, "has_expired", lambda entry: True)
    monkeypatch.setattr(Callers, "by_token", lambda callers, token: None)
    await _both_end(guarded, *streams)


async def test_a_list_that_became_useless_leaves_the_old_one_in_force(guarded):
    token = guarded.add("ada", Role.READER)
    assert await guarded.call("Repeat", bearer(token))
    guarded.path.write_text("[[callers]")
    assert await guarded.call("Repeat", bearer(token))
    guarded.path.unlink()
    assert await guarded.call("Repeat", bearer(token))


async def test_health_is_open_and_reflection_takes_any_role(guarded):
    health: Any = health_pb2_grpc.HealthStub(guarded.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.aio.AioRpcError) as refused:  # nothing is written: gRPC's client may tell that as INTERNAL
        await reflection.ServerReflectionInfo().read()
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    token = guarded.add("gateway", Role.PRODUCER)
    answer = await reflection.ServerReflectionInfo(iter([asked]), metadata=bearer(token)).read()
    assert NAME in [service.name for service in answer.list_services_response.service]
