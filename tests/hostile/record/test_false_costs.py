"""No other producer can use up a budget."""

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Script, Step, Tokens
from service_kit.access.roles import Role
from tests.audit_svc.samples import cost_row, record_request, session_row
from tests.e2e.conftest import run_turn
from tests.hostile.record.conftest import Listed

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(120)]

ALICE = {"user": "alice"}
PRICED = {"GATEWAY_OPENAI_MODEL": "gpt-4o-mini", "GATEWAY_DEFAULT_ENGINE": "openai"}


async def test_what_another_producer_says_that_a_label_spent_counts_for_nothing_unless_a_setting_names_it(
    make_pair, tmp_path
):
    """Of an own session, and of one that the gateway has made."""
    listed = Listed(
        tmp_path, {"gateway-1": [Role.PRODUCER, Role.READER], "gateway-2": [Role.PRODUCER], "mallory": [Role.PRODUCER]}
    )
    pair = await make_pair(Script(steps=(Step(text="done", tokens=Tokens(input=1_000, output=100)),)))
    pair.start_audit(AUDIT_TOKENS_FILE=str(listed.path))
    env = {
        **PRICED,
        "GATEWAY_AUDIT_TOKEN_FILE": listed.token_file("gateway-1"),
        "GATEWAY_PRODUCER_NAME": "gateway-1",
        "GATEWAY_BUDGETS": "user=*:1000000",
        "GATEWAY_BUDGETS_FROM_LEDGER": "true",
    }
    gateway = await pair.gateway(pair.start_gateway(**env))
    settings = pb.SessionSettings(labels=ALICE)
    first = await run_turn(gateway, new_session=settings)
    session_id = first[0].turn_accepted.session_id
    await pair.until("SELECT count(*) FROM cost_log", [(1,)])
    audit = await pair.audit()

    async def say(name: str, session_id: str) -> None:
        cost = cost_row(session_id=session_id, cost_micros=10**9)
        session = session_row(id=session_id, labels=ALICE, status=common_pb2.SESSION_STATUS_IDLE)
        false = record_request(producer_id=name, model_requests=[cost], sessions=[session])
        answer = await audit.RecordBatch(false, metadata=listed.shown_by(name))
        assert answer.stored == 2, answer

    await say("mallory", "of-mallory")
    await say("mallory", session_id)
    again = (await run_turn(gateway, session_id=session_id))[-1].turn_finished
    assert (again.stop_reason, again.usage.requests) == (pb.STOP_REASON_COMPLETED, 1)
    trusting = pair.start_gateway(
        **env, GATEWAY_BUDGETS_PRODUCERS="gateway-2", GATEWAY_STATE_DIR=str(tmp_path / "another")
    )
    trusting_gateway = await pair.gateway(trusting)
    assert (await run_turn(trusting_gateway, new_session=settings))[-1].turn_finished.stop_reason == (
        pb.STOP_REASON_COMPLETED
    )
    await say("gateway-2", "of-gateway-2")
    ended = (await run_turn(trusting_gateway, new_session=settings))[-1].turn_finished
    assert (ended.stop_reason, ended.usage.requests) == (pb.STOP_REASON_MAX_COST, 0), "a named one's costs count"
    assert (await run_turn(gateway, new_session=settings))[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
