"""What every home of conversations must do, whatever it is made of."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.protocol import Conversations
from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Busy, InvalidRequest, NotFound
from gateway_svc.messages import AssistantMessage, Message, Native, ToolMessage, UserMessage
from recording.calls import ToolCall
from recording.key_file import Key
from tests.support.postgres import *  # noqa: F403 - fixtures

Home = Callable[[], Conversations]

text = st.text(max_size=20)
calls = st.builds(ToolCall, text, text, text, text)
natives = st.none() | st.builds(Native, text, text, st.lists(text, max_size=2).map(tuple))
messages = st.lists(
    st.builds(UserMessage, text)
    | st.builds(AssistantMessage, text, text, st.lists(calls, max_size=3).map(tuple), natives)
    | st.builds(ToolMessage, text, text, text),
    max_size=8,
)


HOMES = [
    *("files", "encrypted files"),
    *(pytest.param(name, marks=pytest.mark.postgres) for name in ("postgres", "encrypted postgres")),
]
KEY = Key("key", b"k" * 32)


@pytest.fixture(params=HOMES)
async def home(request, tmp_path) -> AsyncIterator[Home]:
    """Opens the home, as each gateway that shares it does."""
    async with AsyncExitStack() as stack:
        keys = Keys([KEY] if "encrypted" in request.param else [])
        if "postgres" in request.param:
            from gateway_svc.conversations.postgres.store import PostgresConversations

            url = request.getfixturevalue("postgres_database")

        def open_home() -> Conversations:
            if "files" in request.param:
                opened: Conversations = FileConversations(tmp_path, keys=keys)
            else:
                opened = PostgresConversations(url, keys=keys)
            stack.push_async_callback(opened.aclose)
            return opened

        yield open_home


async def made(home: Conversations, owner: str = "", **settings_: Any) -> str:
    state = SessionState(id=str(uuid7()), revision=1, owner=owner, settings=pb.SessionSettings(**settings_))
    await home.create(state, synced=True)
    return state.id


async def test_a_new_session_is_what_it_was_made(home):
    state = SessionState(id=str(uuid7()), revision=1, owner="ada", created_at_ms=5, updated_at_ms=5)
    state.settings.CopyFrom(pb.SessionSettings(engine="one", system_prompt="be brief" * 20_000, labels={"team": "a"}))
    await home().create(state, synced=True)
    assert await home().state(state.id, "ada") == state
    assert await home().state(state.id, None) == state
    lease = await home().open(state.id)
    assert (lease.state, lease.history.messages, lease.history.unreadable) == (state, [], "")
    await lease.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(messages, messages)
def test_messages_come_back_as_they_were_to_who_has_them_in_memory_and_who_has_not(home, first, second):
    async def tell() -> None:
        here = home()
        session_id = await made(here)
        for said in (first, second):
            lease = await here.open(session_id)
            for message in said:
                lease.append(message)
            await lease.save()
            await lease.close()
        for gateway in (here, home()):
            lease = await gateway.open(session_id)
            assert lease.history.messages == first + second
            await lease.close()
            await gateway.aclose()

    asyncio.run(tell())


async def test_what_another_gateway_has_added_is_read(home):
    """The one that has the beginning in memory reads what is new, and both go on."""
    one, two = home(), home()
    session_id, said = await made(one), list[Message]()
    for number, gateway in enumerate([one, two, one, one, two, two, one]):
        lease = await gateway.open(session_id)
        assert lease.history.messages == said
        said.append(UserMessage(f"question {number}"))
        lease.append(said[-1])
        await lease.save()
        await lease.close()


async def test_sums_that_were_noted_count_though_nothing_was_saved_after_them(home):
    """As when the process dies in the middle of a turn."""
    session_id = await made(home())
    lease = await home().open(session_id)
    lease.append(UserMessage("go"))
    for cost in (5, 7):
        lease.state.totals.known_cost_micros = cost
        lease.note_sums()
    await lease.close()
    lease = await home().open(session_id)
    assert (lease.state.totals.known_cost_micros, lease.state.revision) == (7, 3)
    assert lease.history.messages == [UserMessage("go")]
    await lease.save()
    await lease.close()
    assert (await home().state(session_id, None)).totals.known_cost_micros == 7


async def test_one_holds_a_session_at_a_time(home):
    one, two = home(), home()
    session_id = await made(one)
    lease = await one.open(session_id)
    for gateway in (one, two):
        with pytest.raises(Busy):
            await gateway.open(session_id)
        with pytest.raises(Busy):
            await gateway.remove(session_id)
    await lease.close()
    await (await two.open(session_id)).close()


async def test_a_running_turn_shows_as_running_to_others_and_as_failed_when_its_holder_is_gone(home):
    one, two = home(), home()
    session_id = await made(one)
    lease = await one.open(session_id)
    lease.state.status = common_pb2.SESSION_STATUS_RUNNING
    await lease.save()
    assert (await two.state(session_id, None)).status == common_pb2.SESSION_STATUS_RUNNING
    assert await two.abandoned() == []
    await lease.close()  # without an end of its turn
    assert (await two.state(session_id, None)).status == common_pb2.SESSION_STATUS_FAILED
    assert [state.status for state in (await two.list_page(9, None, None)).states] == [common_pb2.SESSION_STATUS_FAILED]
    assert await two.abandoned() == [session_id]
    lease = await two.open(session_id)
    lease.state.status = common_pb2.SESSION_STATUS_IDLE
    await lease.save()
    await lease.close()
    assert await two.abandoned() == []


async def test_pages_are_in_the_order_of_ids_and_hold_what_the_viewer_may_see(home):
    here = home()
    ids = [(await made(here, owner), owner) for owner in ["ada", "bob", "", "ada", "bob", "ada"]]
    for viewer in ("ada", "bob", "eve", "", None):
        expected = [session_id for session_id, owner in reversed(ids) if viewer is None or owner in ("", viewer)]
        found, has_more = list[str](), True
        while has_more:
            states, has_more = await here.list_page(2, found[-1] if found else None, viewer)
            assert len(states) == min(2, len(expected) - len(found))
            found += [state.id for state in states]
        assert found == expected


async def test_a_session_of_others_is_not_known(home):
    session_id = await made(home(), "ada")
    for other in ("bob", ""):
        with pytest.raises(NotFound, match=session_id):
            await home().state(session_id, other)


@pytest.mark.parametrize("session_id", ["0190-unknown", "../../etc/passwd", "leases"])
async def test_an_unknown_session_is_told_by_its_name(home, session_id):
    for ask in (home().open, home().remove, lambda name: home().state(name, None)):
        with pytest.raises(NotFound, match=r"session"):
            await ask(session_id)


async def test_an_empty_id_is_refused(home):
    with pytest.raises(InvalidRequest):
        await home().open("")


async def test_what_was_removed_is_gone(home):
    here = home()
    session_id, other = await made(here, "ada"), await made(here, "ada")
    lease = await here.open(session_id)
    lease.append(UserMessage("a secret"))
    await lease.save()
    await lease.close()
    await here.remove(session_id)
    for gateway in (here, home()):
        for ask in (gateway.open, gateway.remove):
            with pytest.raises(NotFound):
                await ask(session_id)
        assert [state.id for state in (await gateway.list_page(9, None, "ada")).states] == [other]


async def test_what_was_not_used_since_is_found_the_oldest_first(home):
    here, ids = home(), []
    for number in range(4):
        state = SessionState(
            id=str(uuid7()), revision=1, created_at_ms=number, updated_at_ms=number + 2 * (number == 1)
        )
        await here.create(state, synced=False)
        ids.append(state.id)
    assert [session_id async for session_id in here.unused_since(3)] == [ids[0], ids[2]]
    assert [session_id async for session_id in here.unused_since(0)] == []


async def test_who_is_cancelled_while_a_session_is_opened_has_it_not(home):
    here = home()
    session_id = await made(here)
    for wait in range(20):
        opening = asyncio.create_task(here.open(session_id))
        for _ in range(wait):
            await asyncio.sleep(0)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).close()
        await (await here.open(session_id)).close()
