"""What a failed call's status has beside its text, as both of gRPC's Python clients tell it."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from recording.channel.details import details_of, has_details, info_of

TRAILER = "grpc-status-details-bin"


def packed(*details: Any) -> bytes:
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
    for detail in details:
        part = any_pb2.Any()
        part.Pack(detail)
        status.details.append(part)
    data: bytes = status.SerializeToString()
    return data


INFO = error_details_pb2.ErrorInfo(reason="STORE_CLOSED", domain="onrecord.dev", metadata={"a": "b"})
SENT = {
    "whole": packed(error_details_pb2.RetryInfo(), INFO),
    "without": packed(error_details_pb2.RetryInfo()),
    "empty": b"",
    "garbage": b"\xff\xff\xff",
}


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Of a server whose method NAME fails with SENT[NAME] in its trailer."""
    server = grpc.aio.server()

    class Fails(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            async def fail(request: bytes, context: Any) -> None:
                name = call.method.rpartition("/")[2]
                trailer = ((TRAILER, SENT[name]),) if name in SENT else ()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away", trailer)

            return grpc.unary_unary_rpc_method_handler(fail)

    server.add_generic_rpc_handlers((Fails(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def failure(address: str, name: str) -> grpc.RpcError:
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/s/{name}")
        with pytest.raises(grpc.RpcError) as failed:
            await call(b"")
        return failed.value


@pytest.mark.parametrize(
    ("name", "has", "details", "info"),
    [
        ("whole", True, 2, INFO),
        ("without", True, 1, error_details_pb2.ErrorInfo()),
        ("empty", True, 0, error_details_pb2.ErrorInfo()),
        ("garbage", True, 0, error_details_pb2.ErrorInfo()),
        ("none", False, 0, error_details_pb2.ErrorInfo()),
    ],
)
async def test_details_are_read_as_far_as_they_can_be(address, name, has, details, info):
    error = await failure(address, name)
    assert (has_details(error), len(details_of(error)), info_of(error)) == (has, details, info)


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_what_is_no_failed_call_has_none(error):
    assert (has_details(error), details_of(error), info_of(error).reason) == (False, [], "")
