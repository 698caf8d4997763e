"""A turn whose events are kept: who attaches misses nothing, repeats nothing, and holds nobody up."""

import asyncio
import base64
import json
import os
from contextlib import aclosing, suppress

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import AlreadyExists, Busy, EngineRejected, EventsGone, InvalidRequest, NotFound
from gateway_svc.turns import events as turn_events
from gateway_svc.turns import kept
from gateway_svc.turns.named import Unshared
from gateway_svc.turns.requests import Request
from gateway_svc.turns.turn import Turn
from tests.gateway_svc.scripted_turns import House, Runner, until
from tests.gateway_svc.test_turn_ends import details_of


class Slow(Runner):
    """A model that says `text` piece by piece, and goes on after each when it is let."""

    def __init__(self, text: str = "abcdef") -> None:
        super().__init__(work=self._say)
        self.text = text
        self.let = asyncio.Semaphore(0)
        self.runs = 0

    async def _say(self, turn: Turn) -> None:
        self.runs += 1
        for piece in self.text:
            await self.let.acquire()
            turn.events.put_text(piece)

    def go(self, pieces: int = 99) -> None:
        for _ in range(pieces):
            self.let.release()


async def attach(house: House, turn_id: str, after: int = 0, viewer: str | None = None) -> list[pb.TurnEvent]:
    request = pb.AttachTurnRequest(turn_id=turn_id, after_sequence=after)
    async with aclosing(house.turns.attach(request, viewer)) as stream:
        return [event async for event in stream]


def said(events: list[pb.TurnEvent]) -> str:
    return "".join(event.text_delta.text for event in events)


async def leave(task: "asyncio.Task[list[pb.TurnEvent]]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def kill(house: House) -> None:
    """Lets go what a process holds that is killed: its lock."""
    house.turns.close()
    house.turns._requests._own._fd = os.open(os.devnull, os.O_WRONLY)


async def test_from_wherever_somebody_attaches_all_events_come_once_and_in_order(tmp_path):
    runner = Slow()
    house = House(tmp_path, runner)
    own = asyncio.create_task(house.run(input="hi"))
    await until(lambda: house.turns._kept.running())
    [turn] = house.turns._kept.running()
    runner.go(3)
    await until(lambda: turn.events.last > 2)
    midway = asyncio.create_task(attach(house, turn.turn_id, after=2))
    await asyncio.sleep(0)
    runner.go()
    whole = await own
    assert (await midway) == whole[2:]
    assert said(whole) == "abcdefanswer"
    assert [event.sequence for event in whole] == list(range(1, len(whole) + 1))
    for after in range(len(whole) + 1):
        assert await attach(house, turn.turn_id, after) == whole[after:], "after its end as well"
    for wrong in (-1, len(whole) + 1):
        with pytest.raises(InvalidRequest, match="after_sequence"):
            await attach(house, turn.turn_id, wrong)
    with pytest.raises(InvalidRequest, match="turn_id is empty"):
        await attach(house, "")


async def test_leaving_an_attached_stream_cancels_nothing_and_leaving_the_own_one_does_unless_it_is_kept(tmp_path):
    for keep in (False, True):
        runner = Slow()
        house = House(tmp_path / str(keep), runner)
        own = asyncio.create_task(house.run(input="hi", keep_on_disconnect=keep))
        await until(lambda r=runner: r.runs)  # type: ignore[misc]
        [turn] = house.turns._kept.running()
        other = asyncio.create_task(attach(house, turn.turn_id))
        await asyncio.sleep(0)
        await leave(other)
        assert house.turns._kept.running() == [turn]
        await leave(own)
        runner.go()
        finished = (await attach(house, turn.turn_id))[-1].turn_finished
        assert finished.stop_reason == (pb.STOP_REASON_COMPLETED if keep else pb.STOP_REASON_CANCELLED)


async def test_a_caller_attaches_to_its_own_turns_alone_and_an_unknown_turn_is_not_found(tmp_path):
    house = House(tmp_path, Runner())
    async with aclosing(house.turns.run(pb.RunTurnRequest(input="hi"), "ada", "ada")) as stream:
        events = [event async for event in stream]
    turn_id = events[0].turn_accepted.turn_id
    assert await attach(house, turn_id, viewer="ada")
    assert await attach(house, turn_id, viewer=None)
    for viewer, wanted in (("bob", turn_id), ("ada", "no-such-turn")):
        with pytest.raises(NotFound):
            await attach(house, wanted, viewer=viewer)
        with pytest.raises(NotFound):
            house.turns.cancel(pb.CancelTurnRequest(turn_id=wanted), viewer)


async def test_a_turn_that_has_ended_can_be_cancelled_in_vain_and_is_forgotten_in_the_end(tmp_path, monkeypatch):
    house = House(tmp_path, Runner())
    accepted = (await house.run(input="hi"))[0].turn_accepted
    for target in ({"turn_id": accepted.turn_id}, {"session_id": accepted.session_id}):
        assert house.turns.cancel(pb.CancelTurnRequest(**target)) == accepted.turn_id
    monkeypatch.setattr(kept, "KEEP_SECONDS", -1.0)
    with pytest.raises(NotFound):
        house.turns.cancel(pb.CancelTurnRequest(turn_id=accepted.turn_id))
    with pytest.raises(NotFound):
        await attach(house, accepted.turn_id)
    assert house.turns._kept._bytes == 0


async def test_what_is_not_kept_any_more_is_said_with_the_first_event_that_is(tmp_path, monkeypatch):
    monkeypatch.setattr(turn_events, "MAX_KEPT_BYTES", 3 * turn_events.EVENT_BYTES)

    async def work(turn: Turn) -> None:
        for number in range(20):
            turn.events.begin_step()
            turn.events.put_text(str(number))
            await asyncio.sleep(0)

    house = House(tmp_path, Runner(work=work))
    whole = await house.run(input="hi")
    assert [event.sequence for event in whole] == list(range(1, len(whole) + 1)), "its own client misses nothing"
    turn_id = whole[0].turn_accepted.turn_id
    with pytest.raises(EventsGone) as gone:
        await attach(house, turn_id)
    first = int(gone.value.metadata["first_sequence"])
    assert await attach(house, turn_id, first - 1) == whole[first - 1 :]


@pytest.mark.parametrize("bound", ["MAX_KEPT_BYTES", "MAX_ENDED_BYTES"])
async def test_beyond_a_bound_for_all_the_turns_that_ended_first_keep_their_last_event_alone(
    tmp_path, monkeypatch, bound
):
    monkeypatch.setattr(kept, bound, 2_000)
    house = House(tmp_path, Runner())
    turns = [await house.run(input="x") for _ in range(12)]
    all_kept = house.turns._kept
    assert all_kept._ended_bytes == sum(turn.events.kept_bytes for turn in all_kept._ended.values()) < 4_000
    with pytest.raises(EventsGone):
        await attach(house, turns[0][0].turn_accepted.turn_id)
    assert await attach(house, turns[0][0].turn_accepted.turn_id, turns[0][-1].sequence - 1) == turns[0][-1:]
    assert await attach(house, turns[-1][0].turn_accepted.turn_id) == turns[-1]


async def test_a_silent_turn_gives_signs_of_life_while_it_waits_too(tmp_path, monkeypatch):
    monkeypatch.setattr(turn_events, "HEARTBEAT_SECONDS", 0.01)
    runner = Slow()
    house = House(tmp_path, runner)
    session_id = (await house.turns.sessions.create(pb.SessionSettings())).id
    beats = 0
    first = asyncio.create_task(house.run(input="one", session_id=session_id))
    await until(lambda: runner.runs)
    async with aclosing(house.turns.run(pb.RunTurnRequest(input="two", session_id=session_id))) as stream:
        async for event in stream:
            if event.HasField("heartbeat"):
                assert (event.sequence, event.at_ms > 0) == (0, True)
                beats += 1
            if beats == 3:
                runner.go()
    whole = [event for event in await first if event.sequence]
    assert [event.sequence for event in whole] == list(range(1, len(whole) + 1))


async def test_equal_requests_are_one_turn_however_many_and_when_they_come(tmp_path):
    runner = Slow()
    house = House(tmp_path, runner)
    at_once = [asyncio.create_task(house.run(input="hi", request_id="r-1")) for _ in range(3)]
    await until(lambda: runner.runs)
    await leave(at_once.pop(0))
    assert house.turns._kept.running(), "it is cancelled when the last has left"
    runner.go()
    one, two = await asyncio.gather(*at_once)
    assert one == two == await house.run(input="hi", request_id="r-1")
    assert runner.runs == 1
    with pytest.raises(AlreadyExists) as other:
        await house.run(input="something else", request_id="r-1")
    assert (other.value.resource, other.value.id) == ("request", "r-1")
    async with aclosing(house.turns.run(pb.RunTurnRequest(input="hi", request_id="r-1"), None, "bob")) as stream:
        assert [event async for event in stream], "another caller's request is another"
    assert runner.runs == 2
    for wrong in ("x" * 129, "a\nb", "\x00"):
        with pytest.raises(InvalidRequest, match="request_id"):
            await house.run(input="hi", request_id=wrong)


async def test_after_a_restart_a_retry_is_told_how_its_turn_ended_or_that_it_was_interrupted(tmp_path):
    runner = Slow()
    house = House(tmp_path, runner)
    runner.go(len(runner.text))
    ended = await house.run(input="hi", request_id="ended")
    begun = asyncio.create_task(house.run(input="hi", request_id="cut"))
    await until(lambda: runner.runs == 2)
    [turn] = house.turns._kept.running()
    for _ in range(2):
        kill(house)
        again = Slow()
        house = House(tmp_path, again)
        first, last = await house.run(input="hi", request_id="ended")
        assert (first.turn_accepted, last) == (ended[0].turn_accepted, ended[-1])
        first, last = await house.run(input="hi", request_id="cut")
        assert first.turn_accepted.turn_id == turn.turn_id
        assert last.turn_finished.stop_reason == pb.STOP_REASON_FAILED
        assert details_of(last.turn_finished.error)["ErrorInfo"].reason == "INTERRUPTED"
        with pytest.raises(AlreadyExists):
            await house.run(input="something else", request_id="cut")
        assert again.runs == 0
        [path] = (tmp_path / "requests").iterdir()
        with path.open("ab") as file:
            file.write(b'{"caller": "", "request_id": "torn')
    await leave(begun)


async def test_after_a_restart_its_caller_alone_hears_of_a_turn_and_what_it_has_not_heard_alone(tmp_path):
    house = House(tmp_path, Runner())
    request = pb.RunTurnRequest(input="hi", request_id="r-1")
    async with aclosing(house.turns.run(request, "ada", "ada")) as stream:
        events = [event async for event in stream]
    turn_id = events[0].turn_accepted.turn_id
    kill(house)
    house = House(tmp_path, Runner())
    first, last = await attach(house, turn_id, viewer="ada")
    assert (first.turn_accepted, last) == (events[0].turn_accepted, events[-1])
    assert await attach(house, turn_id, after=1, viewer="ada") == [last]
    assert await attach(house, turn_id, after=last.sequence, viewer="ada") == []
    cancel = pb.CancelTurnRequest(turn_id=turn_id)
    assert house.turns.cancel(cancel, "ada") == turn_id
    with pytest.raises(NotFound):
        await attach(house, turn_id, viewer="bob")
    with pytest.raises(NotFound):
        house.turns.cancel(cancel, "bob")


async def test_a_deleted_session_takes_the_events_of_its_named_turns_along_and_none_runs_again(tmp_path):
    runner = Runner()
    house = House(tmp_path, runner)
    first, *_ = await house.run(input="hi", request_id="r-1")
    names = first.turn_accepted
    await house.turns.sessions.delete(names.session_id)
    for _ in range(2):
        with pytest.raises(NotFound) as gone:
            await attach(house, names.turn_id)
        assert (gone.value.resource, gone.value.id) == ("turn", names.turn_id)
        again = await house.run(input="hi", request_id="r-1")
        assert [event.WhichOneof("event") for event in again] == ["turn_accepted", "turn_finished"]
        kill(house)
        house = House(tmp_path, runner)
    assert len(runner.seen) == 1


class TakenOver(Unshared):
    """Claims of which another gateway takes the first over before its turn begins."""

    def __init__(self) -> None:
        self.released: list[str] = []

    async def begun(self, request: Request) -> None:
        if not self.released:
            raise Busy("another gateway has taken this request over")

    async def release(self, caller: str, request_id: str) -> None:
        self.released.append(request_id)


async def test_a_request_that_another_gateway_has_taken_over_runs_nothing_and_may_come_again(tmp_path):
    runner, claims = Runner(), TakenOver()
    house = House(tmp_path, runner, shared=claims)
    events = await house.run(input="hi", request_id="r-1")
    assert details_of(events[-1].turn_finished.error)["ErrorInfo"].reason == "BUSY"
    assert (len(runner.seen), claims.released) == (0, ["r-1"])
    events = await house.run(input="hi", request_id="r-1")
    assert (events[-1].turn_finished.stop_reason, len(runner.seen)) == (pb.STOP_REASON_COMPLETED, 1)


async def test_a_request_that_cannot_be_written_runs_nothing_and_may_come_again(tmp_path, monkeypatch):
    runner = Slow()
    house = House(tmp_path, runner)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", full)
        events = await house.run(input="hi", request_id="r-1")
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_FAILED
    assert runner.runs == 0
    runner.go()
    events = await house.run(input="hi", request_id="r-1")
    assert (events[-1].turn_finished.stop_reason, runner.runs) == (pb.STOP_REASON_COMPLETED, 1)


async def test_what_a_model_server_said_of_a_failure_is_on_no_disk_and_its_reason_outlives_the_gateway(tmp_path):
    async def fail(_: Turn) -> None:
        raise EngineRejected("ollama", "m", "cannot parse SENTINEL", 400)

    house = House(tmp_path, Runner(work=fail))
    told = (await house.run(input="hi", request_id="r-1"))[-1].turn_finished.error
    assert "SENTINEL" in told.message
    [path] = (tmp_path / "requests").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(b"SENTINEL" not in base64.b64decode(line.get("finished", "")) for line in lines)
    kill(house)
    again = (await House(tmp_path, Slow()).run(input="hi", request_id="r-1"))[-1].turn_finished.error
    assert (again.code, "SENTINEL" in again.message) == (told.code, False)
    assert details_of(again)["ErrorInfo"].reason == "ENGINE_REJECTED"
