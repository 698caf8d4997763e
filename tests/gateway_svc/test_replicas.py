"""What a gateway that shares its sessions has the others do, and that it says so where one did not."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from onrecord.gateway.v1 import control_pb2

from gateway_svc.conversations.postgres.calls import Answer, Call, Calls
from gateway_svc.errors import Damaged, ShuttingDown
from gateway_svc.replicas import RESUME, STOP, Replicas

SCOPE = control_pb2.StopScope(principal="ada")
FOUND = control_pb2.StopAgentsResponse(ended_turns=2)


class Others:
    """Others that answer as they are told to."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.asked: list[Call] = []

    async def ask(self, call: Call, is_enough: Any, **_: Any) -> list[Answer]:
        assert not any(map(is_enough, self.answers)), "all are waited for"
        self.asked.append(call)
        return self.answers

    @property
    def replicas(self) -> Replicas:
        return Replicas(cast("Calls", self))


async def test_a_stop_and_its_end_are_told_to_all_others_and_each_answer_counts():
    stop = control_pb2.Stop(id="1", scope=SCOPE, reason="a drill")
    others = Others([Answer(FOUND.SerializeToString(), None, number) for number in (2, 3)])
    request = control_pb2.StopAgentsRequest(scope=SCOPE, reason="a drill")
    assert await others.replicas.stop(request, stop) == [FOUND, FOUND]
    await others.replicas.resume("1")
    assert [call.method for call in others.asked] == [STOP, RESUME]
    assert others.asked[1].request == b"1"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(None, b"a status", 3), ShuttingDown),
        (Answer(None, None, 3, Damaged("it cannot be read", "call", "1")), Damaged),
    ],
)
async def test_one_that_did_not_is_told(answer: Answer, error: type[Exception]):
    others = Others([Answer(FOUND.SerializeToString(), None, 2), answer])
    with pytest.raises(error):
        await others.replicas.resume("1")
    with pytest.raises(error):
        await others.replicas.stop(control_pb2.StopAgentsRequest(), control_pb2.Stop(id="1"))
