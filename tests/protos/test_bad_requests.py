"""Each bad request of each RPC gets the refusal that protos/README.md tells, over real gRPC."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from recording.channel.options import CLIENT_OPTIONS
from tests.protos.bad_requests import METHODS, OTHER_IDS, RECORDING, RESOURCES, BadRequest, fields, named, table
from tests.protos.pair import started_pair


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, grpc.Channel]]:
    """A channel to each service of a real pair, by its package."""
    with (
        started_pair(tmp_path_factory.mktemp("pair"), AUDIT_SEAL_SECONDS="1") as (ledger, gateway),
        grpc.insecure_channel(ledger.address, CLIENT_OPTIONS) as to_ledger,
        grpc.insecure_channel(gateway.address, CLIENT_OPTIONS) as to_gateway,
    ):
        yield {"onrecord.audit.v1": to_ledger, "onrecord.gateway.v1": to_gateway}


def refusal(channel: grpc.Channel, path: str, request: bytes) -> grpc.Call:
    """How an RPC ends that is called with bytes."""
    method: Any = channel.unary_stream(path)  # whatever the RPC is: bytes there, and any number back
    running = method(request, timeout=60, wait_for_ready=True)
    try:
        for _ in running:
            pass
    except grpc.RpcError:
        pass
    return running  # type: ignore[no-any-return]


def told(call: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"status": call.code().name}
    status: Any = rpc_status.from_call(call)
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            found |= {"domain": info.domain, "reason": info.reason, "metadata": dict(info.metadata)}
        if detail.Unpack(bad):
            found["field"] = bad.field_violations[0].field
        if detail.Unpack(retry):
            found["retry"] = retry.retry_delay.ToMilliseconds()
    if pushback := dict(call.trailing_metadata()).get("grpc-retry-pushback-ms"):
        found["pushback"] = int(pushback)
    return found


@pytest.mark.long
@pytest.mark.parametrize("bad", list(table()), ids=str)
def test_a_bad_request_gets_the_refusal_that_is_documented(channels, bad: BadRequest):
    package = bad.method.containing_service.file.package
    call = refusal(channels[package], bad.path, bad.request)
    want: dict[str, Any] = {"status": bad.status}
    if bad.reason:
        want |= {"domain": "onrecord.dev", "reason": bad.reason, "metadata": dict(bad.metadata)}
    assert told(call) == (want | {"field": bad.field} if bad.field else want)


def test_every_id_of_a_request_is_looked_up_or_said_to_be_something_else():
    paths = {named(path) for method in METHODS if method.name not in RECORDING for path in fields(method.input_type)}
    ids = {path for path in paths if path.endswith("_id") or path.split(".")[-1] == "id"}
    assert ids <= set(RESOURCES) | OTHER_IDS
