"""How turns follow one another, end, and leave their session."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import (
    Busy,
    EngineNotConfigured,
    EngineUnavailable,
    GatewayError,
    InvalidRequest,
    NotFound,
    Overloaded,
)
from gateway_svc.messages import AssistantMessage, ToolMessage, UserMessage
from gateway_svc.turns.queue import Capacity
from gateway_svc.turns.turn import Turn
from recording.calls import ToolCall
from tests.gateway_svc.scripted_turns import House, Runner, statuses, until
from tests.support.conversations import held_elsewhere, history_of

SETTINGS: dict[str, Any] = {"system_prompt": "be brief", "labels": {"team": "a"}}
CALL = ToolCall("row-1", "call_1", "bash", "{}")


async def test_a_turn_tells_its_begin_its_text_and_its_end(tmp_path):
    house = House(tmp_path, Runner())
    accepted, started, text, finished = await house.run(
        input="hi", new_session=pb.SessionSettings(labels={"user": "ada"})
    )
    assert accepted.turn_accepted.session_id == house.rows[0].id
    assert accepted.turn_accepted.turn_id
    assert (started.turn_started.engine, started.turn_started.model) == ("one", "m1")
    assert text.text_delta.text == "answer"
    assert finished.turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert statuses(house) == ["IDLE", "RUNNING", "IDLE"]
    assert [row.revision for row in house.rows] == [1, 2, 3]
    assert house.rows[-1].labels == {"user": "ada"}


async def test_a_conversation_goes_on_after_a_restart(tmp_path):
    first = await House(tmp_path, Runner()).run(input="one", new_session=SETTINGS)
    session_id = first[0].turn_accepted.session_id
    runner = Runner()
    again = House(tmp_path, runner)
    await again.run(input="two", session_id=session_id)
    [(_, history)] = runner.seen
    assert history == [UserMessage("one"), AssistantMessage("answer"), UserMessage("two")]
    state = await again.sessions.get(session_id)
    assert (state.turns, state.settings) == (2, pb.SessionSettings(engine="one", model="m1", **SETTINGS))
    assert state.to_message().settings.system_prompt == "", "no answer tells it"


async def test_turns_of_one_session_wait_for_each_other_in_order(tmp_path):
    running, most = 0, 0

    async def work(turn: Turn) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    runner = Runner(work=work)
    house = House(tmp_path, runner)
    session_id = (await house.turns.sessions.create(pb.SessionSettings())).id
    await asyncio.gather(*(house.run(input=str(n), session_id=session_id) for n in range(5)))
    assert most == 1
    assert [history[-1] for _, history in runner.seen] == [UserMessage(str(n)) for n in range(5)]


async def test_turns_of_different_sessions_run_side_by_side(tmp_path):
    together = asyncio.Barrier(3)

    async def work(turn: Turn) -> None:
        await together.wait()

    house = House(tmp_path, Runner(work=work))
    async with asyncio.timeout(30):
        await asyncio.gather(*(house.run(input=str(n)) for n in range(3)))


async def test_the_model_stays_with_the_session_until_the_engine_changes(tmp_path):
    one, two = Runner("one"), Runner("two")
    house = House(tmp_path, one, two)
    session_id = (await house.run(input="a", model="m9"))[0].turn_accepted.session_id
    await house.run(input="b", session_id=session_id)
    await house.run(input="c", session_id=session_id, engine="two")
    await house.run(input="d", session_id=session_id)
    assert [model for model, _ in one.seen] == ["m9", "m9"]
    assert [model for model, _ in two.seen] == ["m1", "m1"]


async def cancelled(house: House, begun: asyncio.Event, how: Callable[[str], object] | None) -> list[pb.TurnEvent]:
    heard: list[pb.TurnEvent] = []

    async def listen() -> None:
        async with aclosing(house.turns.run(pb.RunTurnRequest(input="hi"))) as events:
            async for event in events:
                heard.append(event)

    task = asyncio.create_task(listen())
    await begun.wait()
    await until(lambda: heard)
    how(heard[0].turn_accepted.turn_id) if how is not None else task.cancel()
    await asyncio.wait([task])
    return heard


@pytest.mark.parametrize("by_rpc", [True, False])
async def test_a_cancelled_turn_leaves_a_history_that_every_server_accepts(tmp_path, by_rpc):
    begun = asyncio.Event()

    async def work(turn: Turn) -> None:
        turn.append(AssistantMessage("let me see", "", (CALL,)))
        begun.set()
        await asyncio.Event().wait()

    house = House(tmp_path, Runner(work=work))
    heard = await cancelled(
        house, begun, (lambda turn_id: house.turns.cancel(pb.CancelTurnRequest(turn_id=turn_id))) if by_rpc else None
    )
    assert heard[-1].HasField("turn_finished") is by_rpc
    if by_rpc:
        assert heard[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    history = await history_of(tmp_path, heard[0].turn_accepted.session_id)
    note = "(The turn was cancelled.)"
    assert history[2:] == [ToolMessage("call_1", "bash", note), AssistantMessage(note)]
    assert statuses(house)[-1] == "CANCELLED"


async def test_a_waiting_turn_can_be_cancelled_and_its_session_goes_on(tmp_path):
    go = asyncio.Event()

    async def work(turn: Turn) -> None:
        await go.wait()

    runner = Runner(work=work)
    house = House(tmp_path, runner)
    session_id = (await house.turns.sessions.create(pb.SessionSettings())).id
    first = asyncio.create_task(house.run(input="first", session_id=session_id))
    await until(lambda: runner.seen)
    second = asyncio.create_task(house.run(input="second", session_id=session_id))
    await until(lambda: house.sessions.asking_for(session_id) == 2)
    waiting = [running for running in house.turns._kept.running() if not running.begun]
    assert len(waiting) == 1
    assert house.turns.cancel(pb.CancelTurnRequest(turn_id=waiting[0].turn_id)) == waiting[0].turn_id
    accepted, finished = await second
    assert accepted.turn_accepted.turn_id == waiting[0].turn_id
    assert finished.turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    go.set()
    assert len(await first) == 4
    assert len(await house.run(input="third", session_id=session_id)) == 4


async def test_cancelling_a_session_means_the_turn_that_waits_where_none_of_it_runs(tmp_path):
    """And not one that has ended: who cancels has heard that the newer one was accepted."""
    go = asyncio.Event()

    async def work(turn: Turn) -> None:
        await go.wait()

    house = House(tmp_path, Runner(work=work), capacity=Capacity(running=1))
    session_id = (await house.turns.sessions.create(pb.SessionSettings())).id
    go.set()
    ended, *_ = await house.run(input="first", session_id=session_id)
    go.clear()
    elsewhere = asyncio.create_task(house.run(input="takes the place"))
    await until(lambda: any(turn.begun for turn in house.turns._kept.running()))
    waiting = [asyncio.create_task(house.run(input=text, session_id=session_id)) for text in ("second", "third")]
    await until(lambda: house.sessions.asking_for(session_id) == 2)
    cancelled = house.turns.cancel(pb.CancelTurnRequest(session_id=session_id))
    accepted, finished = await waiting[0]
    assert accepted.turn_accepted.turn_id == cancelled != ended.turn_accepted.turn_id
    assert finished.turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    go.set()
    assert len(await elsewhere) == len(await waiting[1]) == 4


async def test_a_turn_cancelled_before_its_first_line_still_tells_its_end(tmp_path):
    house = House(tmp_path, Runner())
    stream = house.turns.run(pb.RunTurnRequest(input="hi"))
    assert (await anext(stream)).HasField("turn_accepted")
    [running] = house.turns._kept.running()
    running.cancel()
    assert (await anext(stream)).turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    await stream.aclose()


async def test_a_failed_turn_is_told_and_the_session_can_go_on(tmp_path):
    failing = True

    async def work(turn: Turn) -> None:
        if failing:
            raise EngineUnavailable("one", "m1", "cannot be reached")

    house = House(tmp_path, Runner(work=work))
    events = await house.run(input="hi")
    finished = events[-1].turn_finished
    assert (finished.stop_reason, finished.error.code) == (pb.STOP_REASON_FAILED, grpc.StatusCode.UNAVAILABLE.value[0])
    assert finished.error.message == "engine one, model m1: cannot be reached"
    session_id = house.rows[-1].id
    assert statuses(house)[-1] == "FAILED"
    failing = False
    assert len(await house.run(input="again", session_id=session_id)) == 4
    assert (await history_of(tmp_path, session_id))[1] == AssistantMessage("(The turn failed before it was finished.)")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"input": ""}, InvalidRequest),
        ({"input": " \n"}, InvalidRequest),
        ({"input": "x" * (2**20 + 1)}, InvalidRequest),
        ({"input": "hi", "new_session": {"system_prompt": "x" * (2**18 + 1)}}, InvalidRequest),
        ({"input": "hi", "model": "x" * 257}, InvalidRequest),
        ({"input": "hi", "new_session": {"fallback": {"engine": "one", "model": "x" * 257}}}, InvalidRequest),
        ({"input": "hi", "new_session": {"fallback": {"model": "m1"}}}, InvalidRequest),
        ({"input": "hi", "new_session": {"shadows": [{"model": "m1"}]}}, InvalidRequest),
        ({"input": "hi", "new_session": {"max_cost_micros": -1}}, InvalidRequest),
        ({"input": "hi", "max_steps": -1}, InvalidRequest),
        ({"input": "hi", "max_steps": 0}, InvalidRequest),
        ({"input": "hi", "max_cost_micros": -1}, InvalidRequest),
        ({"input": "hi", "new_session": {"engine": "nine"}}, EngineNotConfigured),
        ({"input": "hi", "session_id": ""}, InvalidRequest),
        ({"input": "hi", "engine": "nine"}, EngineNotConfigured),
        ({"input": "hi", "session_id": "0190-unknown"}, NotFound),
        ({"input": "hi", "session_id": "../../etc/passwd"}, NotFound),
        ({"input": "hi", "new_session": {"labels": {"": "v"}}}, InvalidRequest),
        ({"input": "hi", "new_session": {"labels": {"k" * 65: "v"}}}, InvalidRequest),
        ({"input": "hi", "new_session": {"labels": {"k": "v" * 257}}}, InvalidRequest),
        ({"input": "hi", "new_session": {"labels": {str(n): "v" for n in range(33)}}}, InvalidRequest),
    ],
)
async def test_a_request_that_cannot_be_carried_out_is_refused_and_leaves_no_session(tmp_path, request_, error):
    house = House(tmp_path, Runner())
    with pytest.raises(error) as refusal:
        await house.run(**request_)
    assert isinstance(refusal.value, GatewayError)
    assert str(refusal.value)
    assert (await house.sessions.list_page(10, None)).states == []


async def test_a_session_whose_process_died_in_a_turn_is_shown_as_failed_and_goes_on(tmp_path):
    house = House(tmp_path, Runner())
    state = await house.turns.sessions.create(pb.SessionSettings())
    async with held_elsewhere(tmp_path, state.id) as lease:
        lease.state.status = common_pb2.SESSION_STATUS_RUNNING
        await lease.save()
        lease.append(UserMessage("hi"))
    assert (await house.sessions.get(state.id)).status == common_pb2.SESSION_STATUS_FAILED
    await house.turns.sessions.recover()
    assert statuses(house)[-1] == "FAILED", "the ledger hears of it"
    told = len(house.rows)
    await house.turns.sessions.recover()
    assert len(house.rows) == told, "once"
    await house.run(input="again", session_id=state.id)
    assert (await history_of(tmp_path, state.id))[1] == AssistantMessage("(The turn was interrupted.)")


async def test_the_end_of_the_gateway_cancels_all_turns_and_waits_for_them(tmp_path):
    async def work(turn: Turn) -> None:
        await asyncio.Event().wait()

    runner = Runner(work=work)
    house = House(tmp_path, runner)
    tasks = [asyncio.create_task(house.run(input="hi")) for _ in range(3)]
    await until(lambda: len(runner.seen) == 3)
    await house.turns.cancel_all()
    for events in await asyncio.gather(*tasks):
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    assert statuses(house)[-3:] == ["CANCELLED"] * 3


async def test_cancelling_what_does_not_run_is_not_found(tmp_path):
    house = House(tmp_path, Runner())
    with pytest.raises(NotFound):
        house.turns.cancel(pb.CancelTurnRequest(turn_id="no-such-turn"))
    with pytest.raises(NotFound):
        house.turns.cancel(pb.CancelTurnRequest(session_id="no-such-session"))
    for nothing in (pb.CancelTurnRequest(), pb.CancelTurnRequest(turn_id=""), pb.CancelTurnRequest(session_id="")):
        with pytest.raises(InvalidRequest, match="is empty"):
            house.turns.cancel(nothing)


async def test_sessions_are_listed_newest_first_page_by_page(tmp_path):
    house = House(tmp_path, Runner())
    made = [(await house.turns.sessions.create(pb.SessionSettings())).id for _ in range(5)]
    first = (await house.sessions.list_page(2, None)).states
    second = (await house.sessions.list_page(9, first[-1].id)).states
    assert [state.id for state in first + second] == made[::-1]


async def test_turns_beyond_the_limit_wait_and_those_beyond_the_queue_are_refused(tmp_path):
    """Two run, two wait, the fifth is refused; a waiting one begins when a running one ends, and can be cancelled."""
    running, peak, release = 0, 0, asyncio.Semaphore(0)

    async def work(turn: Turn) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await release.acquire()
        running -= 1

    runner = Runner(work=work)
    house = House(tmp_path, runner, capacity=Capacity(running=2, queued=2))
    turns = [asyncio.create_task(house.run(input=str(number))) for number in range(2)]
    await until(lambda: len(runner.seen) == 2)
    turns += [asyncio.create_task(house.run(input=str(number))) for number in range(2, 4)]
    await until(lambda: house.turns.waiting == 2)
    with pytest.raises(Overloaded, match="4 turns run or wait"):
        await house.run(input="one too many")
    assert len(runner.seen) == 2
    turns[3].cancel()
    release.release()
    await until(lambda: len(runner.seen) == 3)
    for _ in range(3):
        release.release()
    done = await asyncio.gather(*turns, return_exceptions=True)
    assert [type(result).__name__ for result in done] == ["list", "list", "list", "CancelledError"]
    assert (peak, len(runner.seen)) == (2, 3)
    assert await house.run(input="room again")


async def test_turns_that_wait_for_their_session_take_nobodys_place(tmp_path):
    hold = asyncio.Event()

    async def work(turn: Turn) -> None:
        if turn.scope.session_id == first:
            await hold.wait()

    runner = Runner(work=work)
    house = House(tmp_path, runner, capacity=Capacity(running=2))
    first = (await house.turns.sessions.create(pb.SessionSettings())).id
    waiting = [asyncio.create_task(house.run(input="x", session_id=first)) for _ in range(3)]
    await until(lambda: runner.seen and house.sessions.asking_for(first) == 3)
    assert await house.run(input="another session")
    hold.set()
    await asyncio.gather(*waiting)


async def test_a_session_with_a_turn_is_not_deleted_and_one_without_is_gone_with_its_events(tmp_path):
    hold = asyncio.Event()

    async def work(_turn: Turn) -> None:
        await hold.wait()

    house = House(tmp_path, runner := Runner(work=work))
    running = asyncio.create_task(house.run(input="hi"))
    await until(lambda: runner.seen)
    session_id = house.rows[0].id
    with pytest.raises(Busy, match="cancel it first"):
        await house.turns.sessions.delete(session_id)
    hold.set()
    accepted = (await running)[0].turn_accepted
    await house.turns.sessions.delete(session_id)
    with pytest.raises(NotFound):
        await house.sessions.get(session_id)
    with pytest.raises(NotFound):
        await anext(house.turns.attach(pb.AttachTurnRequest(turn_id=accepted.turn_id)))


async def test_turns_that_equal_requests_ask_for_at_once_are_one(tmp_path):
    """Also while the first of them is still making its session."""
    house = House(tmp_path, Runner())
    told = await asyncio.gather(*(house.run(input="hi", request_id="same") for _ in range(5)))
    assert len({events[0].turn_accepted.turn_id for events in told}) == 1
    assert len((await house.sessions.list_page(9, None)).states) == 1
