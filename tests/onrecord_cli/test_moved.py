"""Pages that `onrecord open` shows go on where the services were started anew and listen elsewhere."""

import pytest
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc

from audit_svc.ui.remote import NotAnswered, Remote
from demo.processes import start_service
from onrecord_cli.folder import Following, Running, held, tell
from service_kit import client
from service_kit.unanswered import LEDGER


@pytest.mark.long
async def test_a_ledger_that_listens_elsewhere_now_is_found_by_whoever_asks_again(tmp_path, monkeypatch):
    envs = ({"AUDIT_DB": str(tmp_path / f"{name}.db"), "AUDIT_LISTEN": "127.0.0.1:0"} for name in ("first", "second"))
    first, second = (start_service("audit_svc", env, "serve") for env in envs)
    request = questions_pb2.ListToolCallsRequest()
    with first, second:
        running = Running(1, first.address)
        monkeypatch.setattr(client, "where_now", Following(tmp_path, running))
        remote = Remote("the ledger", LEDGER, running.ledger, [questions_pb2_grpc.QuestionServiceStub])
        try:
            await remote.ask("ListToolCalls", request)
            assert first.terminate() == 0
            with pytest.raises(NotAnswered, match="UNAVAILABLE"):  # nothing is told to run
                await remote.ask("ListToolCalls", request)
            with held(tmp_path):
                tell(tmp_path, running._replace(ledger=second.address))
                with pytest.raises(NotAnswered, match="UNAVAILABLE"):
                    await remote.ask("ListToolCalls", request)
                assert await remote.ask("ListToolCalls", request) == questions_pb2.ListToolCallsResponse()
        finally:
            await remote.close()


def test_an_address_of_something_else_stays(tmp_path):
    follow = Following(tmp_path, Running(1, "127.0.0.1:5", "127.0.0.1:6"))
    assert follow("127.0.0.1:5") == "127.0.0.1:5"  # nothing runs
    with held(tmp_path):
        tell(tmp_path, Running(2, "127.0.0.1:6", ""))
        followed = [follow(target) for target in ("127.0.0.1:5", "127.0.0.1:7", "127.0.0.1:6")]
        assert followed == ["127.0.0.1:6", "127.0.0.1:7", "127.0.0.1:6"]
