"""The service inside `audit-svc … --db` refuses what a service refuses."""

import grpc
import pytest
from onrecord.audit.v1 import questions_pb2

from audit_svc.terminal import client as terminal_client
from audit_svc.terminal.client import connect
from audit_svc.terminal.options import Source
from demo.processes import start_service


async def test_a_question_to_a_file_with_an_unknown_field_is_refused(tmp_path, monkeypatch):
    # A command is a process of its own: the tests beside this one keep their log.
    monkeypatch.setattr(terminal_client, "configure_logging", lambda *_: None)
    database = tmp_path / "audit.db"
    with start_service("audit_svc", {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(database)}, "serve"):
        pass
    async with connect(Source(db=database)) as client:
        assert not (await client.call("ListToolCalls", questions_pb2.ListToolCallsRequest())).tool_calls
        unknown = questions_pb2.ListToolCallsRequest.FromString(b"\xf8\x7c\x01")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.call("ListToolCalls", unknown)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
