"""Messages as JSON for programs."""

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from service_kit.terminal.messages import set_fields


def test_numbers_are_numbers_and_enums_are_as_the_ledger_says_them():
    finished = pb.TurnFinished(
        stop_reason=pb.STOP_REASON_COMPLETED, usage=common_pb2.Usage(input_tokens=2**40), duration_ms=7
    )
    assert set_fields(pb.TurnEvent(sequence=3, turn_finished=finished)) == {
        "sequence": 3,
        "turn_finished": {"stop_reason": "completed", "usage": {"input_tokens": 2**40}, "duration_ms": 7},
    }
    settings = pb.SessionSettings(labels={"team": "a"}, shadows=[pb.EngineChoice(engine="ollama")], max_cost_micros=0)
    assert set_fields(settings) == {"labels": {"team": "a"}, "shadows": [{"engine": "ollama"}], "max_cost_micros": 0}
    assert set_fields(common_pb2.ArgsDigest(hmac_sha256=b"\x01\xff")) == {"hmac_sha256": "01ff"}
    assert set_fields(pb.ToolCallFinished(outcome=99)) == {"outcome": "99"}  # type: ignore[arg-type]
