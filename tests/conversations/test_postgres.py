"""What a home in PostgreSQL does besides: fences, servers that are away, databases that are not its own."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise

import psycopg
import pytest
from onrecord.common.v1 import common_pb2
from uuid_utils import uuid7

from demo.postgres import PostgresServer
from gateway_svc.conversations.postgres import database, lease, store
from gateway_svc.conversations.postgres.database import Patience
from gateway_svc.conversations.postgres.store import PostgresConversations
from gateway_svc.conversations.said import Place
from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import AlreadyExists, Busy, LeaseLost, SettingsError, StoreUnavailable
from gateway_svc.messages import AssistantMessage, UserMessage
from gateway_svc.turns.requests import Request
from tests.support.postgres import postgres_database, postgres_server, standing_still
from tests.support.processes import children_of

__all__ = ["postgres_database", "postgres_server"]

pytestmark = pytest.mark.postgres

FROZEN = "UPDATE gateways SET beat_at = beat_at - interval '1 hour' WHERE number = 1"

SECONDS_TO_BEAT = 30
STILL_SECONDS = 20.0
FOR_EVER_SECONDS = 100_000.0


@pytest.fixture
async def home(postgres_database) -> AsyncIterator[Callable[[], PostgresConversations]]:
    async with AsyncExitStack() as stack:

        def open_home() -> PostgresConversations:
            opened = PostgresConversations(postgres_database)
            stack.push_async_callback(opened.aclose)
            return opened

        yield open_home


async def made(home: PostgresConversations) -> str:
    state = SessionState(id=str(uuid7()), revision=1)
    await home.create(state, synced=True)
    return state.id


async def query(home: PostgresConversations, sql: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(home.database.conninfo, autocommit=True) as connection:
        cursor = await connection.execute(sql)
        return await cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("has_written", [False, True])
async def test_a_holder_that_hangs_is_succeeded_and_cannot_write_when_it_wakes(home, has_written):
    """Also when its successor has written nothing yet, so that its records would follow those that are there."""
    one, two = home(), home()
    session_id = await made(one)
    lease = await one.open(session_id)
    lease.append(UserMessage("first"))
    lease.state.status = common_pb2.SESSION_STATUS_RUNNING
    await lease.save()
    with pytest.raises(Busy):
        await two.open(session_id)
    await query(one, FROZEN)  # as if it had not told for so long that it lives
    later = await two.open(session_id)
    assert later.history.messages == [UserMessage("first")]
    if has_written:
        later.append(AssistantMessage("of the second"))
        await later.save()
    lease.append(AssistantMessage("of the first"))
    with pytest.raises(LeaseLost, match=session_id):
        await lease.kept()
    for refused in (lease.save(), asyncio.to_thread(lease.append, UserMessage("more"))):
        with pytest.raises(LeaseLost):
            await refused
    await lease.close()  # which lets nothing go that is another's
    with pytest.raises(Busy):
        await home().open(session_id)
    if not has_written:
        later.append(AssistantMessage("of the second"))
        await later.save()
    await later.close()
    again = await one.open(session_id)
    assert again.history.messages == [UserMessage("first"), AssistantMessage("of the second")]
    await again.close()


async def test_a_request_whose_gateway_hangs_before_its_turn_runs_at_another_alone(home):
    one, two = home().requests, home().requests
    request = Request("ada", "r", "digest", "session", "turn", 1)
    assert await one.claim("ada", "r", "digest") is None
    with pytest.raises(Busy):
        await two.claim("ada", "r", "digest")
    assert await two.claim("bob", "r", "another's") is None, "a request_id is its caller's"
    await query(home(), FROZEN)
    assert await two.claim("ada", "r", "digest") is None
    with pytest.raises(Busy, match="taken this request over"):
        await one.begun(request)
    await one.release("ada", "r")  # which takes nothing from who has it now
    await two.begun(request)
    with pytest.raises(Busy):
        await one.claim("ada", "r", "digest")


async def test_a_request_is_told_for_an_hour_after_its_end(home):
    one, two = home(), home()
    request = Request("ada", "r", "digest", "session", "turn", 1, finished=b"finished")
    assert await one.requests.claim(*request.key, request.digest) is None
    await one.requests.begun(request)
    one.requests.ended(request)
    await one.requests.tell()
    assert await two.requests.claim(*request.key, request.digest) == request
    with pytest.raises(AlreadyExists):
        await two.requests.claim(*request.key, "another")
    await query(one, "UPDATE gateway_requests SET ended_at = ended_at - interval '59 minutes'")
    await two.requests.look()
    assert await query(one, "SELECT 1 FROM gateway_requests")
    await query(one, "UPDATE gateway_requests SET ended_at = ended_at - interval '1 minute'")
    await two.requests.look()
    assert not await query(one, "SELECT 1 FROM gateway_requests")


async def test_an_end_that_the_database_was_not_told_is_told_later(home, postgres_server):
    one = home()
    request = Request("ada", "r", "digest", "session", "turn", 1, finished=b"finished")
    assert await one.requests.claim(*request.key, request.digest) is None
    postgres_server.kill()
    try:
        one.requests.ended(request)
        await one.requests.tell()
    finally:
        postgres_server.start()
    async with asyncio.timeout(SECONDS_TO_BEAT):
        while not await query(one, "SELECT 1 FROM gateway_requests WHERE finished = 'finished'"):
            await asyncio.sleep(0.1)


async def test_a_lease_ends_with_its_connection(home, postgres_server):
    one, two = home(), home()
    session_id = await made(one)
    lease = await one.open(session_id)
    await one._membership.aclose()
    later = await two.open(session_id)
    lease.append(UserMessage("late"))
    with pytest.raises(LeaseLost):
        await lease.kept()
    await later.close()


async def test_a_turn_outlasts_a_restart_of_the_server():
    with PostgresServer() as server:
        home = PostgresConversations(server.create_database("sessions"))
        try:
            session_id = await made(home)
            lease = await home.open(session_id)
            lease.append(UserMessage("before"))
            await lease.save()
            server.kill()
            lease.append(AssistantMessage("meanwhile"))
            await asyncio.to_thread(server.start)
            await lease.kept()
            lease.append(UserMessage("after"))
            await lease.save()
            await lease.close()
            other = PostgresConversations(server.url("sessions"))
            again = await other.open(session_id)
            assert [message.text for message in again.history.messages] == ["before", "meanwhile", "after"]
            await again.close()
            await other.aclose()
        finally:
            await home.aclose()


async def test_what_a_crash_of_the_server_undid_is_sent_again(home):
    """Commits of what a running turn has added are not waited for; a server that crashes may lose the last ones."""
    one = home()
    session_id = await made(one)
    lease = await one.open(session_id)
    lease.append(UserMessage("go"))
    await lease.save()
    lease.append(AssistantMessage("first"))
    await lease.kept()
    await query(one, "DELETE FROM conversation_records WHERE number = 2")
    await query(one, "UPDATE conversations SET records = 1")
    lease.append(UserMessage("second"))
    await lease.save()
    await lease.close()
    again = await home().open(session_id)
    assert [message.text for message in again.history.messages] == ["go", "first", "second"]
    assert again.history.unreadable == ""
    await again.close()


async def test_what_is_held_by_nobody_here_is_let_go_when_the_connection_is_made_again(home, postgres_server):
    """A crash of the server may undo that a session was let go."""
    one, two = home(), home()
    session_id, held = await made(one), await made(one)
    await (await one.open(session_id)).close()
    lease = await one.open(held)
    await query(one, "UPDATE conversations SET holder = 1")
    with pytest.raises(Busy):
        await two.open(session_id)
    await query(one, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1")
    async with asyncio.timeout(30):
        while await query(one, "SELECT 1 FROM conversations WHERE holder = 1") != [(1,)]:
            await asyncio.sleep(0.05)
    await (await two.open(session_id)).close()
    lease.append(UserMessage("on"))
    await lease.save()
    await lease.close()


async def test_what_is_opened_while_it_is_found_out_what_is_held_by_nobody_is_kept(home, monkeypatch):
    """However long the database takes over it, as when a gateway has just joined and a turn begins at once."""
    one = home()
    await one.open(await made(one))  # so it has joined
    ask, opened = one.database.ask, list[lease.PostgresLease]()

    async def open_before(*asked, **more):
        with monkeypatch.context() as as_it_was:
            as_it_was.setattr(one.database, "ask", ask)
            opened.append(await one.open(await made(one)))
        return await ask(*asked, **more)

    monkeypatch.setattr(one.database, "ask", open_before)
    await one.let_go_of_unheld()
    monkeypatch.setattr(one.database, "ask", ask)
    assert opened
    for held in opened:
        held.append(UserMessage("kept"))
        await held.save()
        await held.close()


async def test_a_server_that_is_away_for_long_is_told_and_waited_for(home, monkeypatch):
    monkeypatch.setattr("gateway_svc.conversations.postgres.store.TURN", Patience(0.5, 5.0))
    with PostgresServer(synced=False) as server:
        url = server.create_database("sessions")
        server.kill()
        away = PostgresConversations(url)
        assert "cannot be used now" in await away.trouble()
        with pytest.raises(StoreUnavailable):
            await away.open("0190-x")
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(30):
            while await away.trouble():
                await asyncio.sleep(0.1)
        await (await away.open(await made(away))).close()
        await away.aclose()


async def test_a_server_that_stands_still_holds_no_caller_up():
    with PostgresServer(synced=False) as server:
        home = PostgresConversations(server.create_database("sessions"))
        session_id = await made(home)
        with standing_still(server):
            async with asyncio.timeout(SECONDS_TO_BEAT):
                with pytest.raises(StoreUnavailable, match="does not answer"):
                    await home.state(session_id, None)
        async with asyncio.timeout(SECONDS_TO_BEAT):
            while await home.trouble():
                await asyncio.sleep(0.1)
        assert (await home.state(session_id, None)).id == session_id
        await home.aclose()


async def test_a_gateway_that_ends_waits_no_more_as_a_turn_does_for_a_server_that_stands_still(
    home, postgres_server, monkeypatch
):
    for module in (lease, store):
        monkeypatch.setattr(module, "TURN", Patience(FOR_EVER_SECONDS, FOR_EVER_SECONDS))
    monkeypatch.setattr(database, "END_SECONDS", 0.2)
    here = home()
    one, other = [await here.open(await made(here)) for _ in range(2)]
    with standing_still(postgres_server):
        async with asyncio.timeout(2 * SECONDS_TO_BEAT):
            closing = asyncio.create_task(one.close())
            await asyncio.sleep(0.1)
            here.hurry()
            await closing
            await other.close()
            await here.aclose()


@asynccontextmanager
async def pulse() -> AsyncIterator[list[float]]:
    """The times, in seconds, at which the event loop got round to this, ten in a second."""
    times = [time.monotonic()]

    async def beat() -> None:
        while True:
            await asyncio.sleep(0.1)
            times.append(time.monotonic())

    beating = asyncio.create_task(beat())
    try:
        yield times
    finally:
        beating.cancel()


def wake_later(server: PostgresServer, seconds: float) -> subprocess.Popen[bytes]:
    """Has a server that stands still go on, from without: a loop that waits for it cannot."""
    command = f"sleep {seconds}; kill -CONT {server.pid} {' '.join(map(str, children_of(server.pid)))}"
    return subprocess.Popen(["sh", "-c", command], stderr=subprocess.DEVNULL, start_new_session=True)


async def test_the_loop_goes_on_when_what_waits_for_a_server_that_stands_still_is_cancelled(home, postgres_server):
    here = home()
    session_id = await made(here)
    with standing_still(postgres_server):
        waker = wake_later(postgres_server, STILL_SECONDS)
        try:
            async with pulse() as times:
                asking = [asyncio.create_task(here.state(session_id, None)) for _ in range(3)]
                await asyncio.sleep(0.5)
                for task in asking:
                    task.cancel()
                ended, _ = await asyncio.wait(asking, timeout=STILL_SECONDS)
                await here.aclose()
                times.append(time.monotonic())
            assert waker.poll() is None, "nobody has waited until the server went on"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(waker.pid, signal.SIGKILL)
            waker.wait()
    assert len(ended) == len(asking)
    assert max(after - before for before, after in pairwise(times)) < STILL_SECONDS / 2
    again = home()
    async with asyncio.timeout(SECONDS_TO_BEAT):
        while await again.trouble():
            await asyncio.sleep(0.1)
    assert (await again.state(session_id, None)).id == session_id


async def test_a_record_that_is_gone_is_told_and_costs_itself_alone(home):
    one = home()
    session_id = await made(one)
    lease = await one.open(session_id)
    for text in ("one", "two", "three"):
        lease.append(UserMessage(text))
        lease.append(AssistantMessage(f"answer {text}"))
    await lease.save()
    await lease.close()
    await query(one, "DELETE FROM conversation_records WHERE number IN (3, 4)")
    lease = await home().open(session_id)
    assert lease.history.unreadable == "records 3 to 4 are missing"
    assert [message.text for message in lease.history.messages] == ["one", "answer one", "three", "answer three"]
    await lease.close()
    page = await one.read_said(session_id, "", Place(0, 0), 3)
    assert [said.number for said in page.said] == [1, 2, 0]
    page = await one.read_said(session_id, "", page.next, 3)
    assert ([said.number for said in page.said], page.next) == ([5, 6], None)


async def test_the_request_of_a_turn_is_found_without_looking_at_all(home):
    one = home()
    await query(
        one,
        "INSERT INTO gateway_requests (caller, request_id, digest, claim, holder, turn_id, ended_at) SELECT '', "
        "'r-' || n, '', gen_random_uuid(), 1000, 't-' || n, clock_timestamp() FROM generate_series(1, 10000) AS n",
    )
    await query(one, "ANALYZE gateway_requests")
    scanned = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'gateway_requests'"
    ((before,),) = await query(one, scanned)
    found = await one.requests.of_gone("t-77")
    assert found is not None
    assert found.request_id == "r-77"
    await one.aclose()  # what a connection has read is told at its end
    assert await query(one, scanned) == [(before,)]


@pytest.mark.parametrize("table", ["tool_call_log", "ledger_writer"])
def test_a_ledgers_database_is_refused(postgres_database, table):
    with psycopg.connect(postgres_database) as connection:
        connection.execute(f"CREATE TABLE {table} (position bigint)")
    with pytest.raises(SettingsError, match=f"GATEWAY_SESSIONS.* {table}.*database of its own"):
        PostgresConversations(postgres_database)
    with psycopg.connect(postgres_database) as connection:
        assert connection.execute("SELECT to_regclass('conversations')").fetchone() == (None,)


def test_a_database_of_a_newer_version_is_refused(postgres_database):
    PostgresConversations(postgres_database)
    with psycopg.connect(postgres_database) as connection:
        connection.execute("INSERT INTO conversation_migrations VALUES (99, 'later')")
    with pytest.raises(SettingsError, match="newer version"):
        PostgresConversations(postgres_database)


def test_no_password_is_told(postgres_server):
    url = postgres_server.url("nowhere").replace("onrecord@", "onrecord:pass-word@")
    with pytest.raises(SettingsError) as refused:
        PostgresConversations(url)
    assert "pass-word" not in str(refused.value)


def test_a_url_that_libpq_cannot_read_is_refused_without_its_words():
    with pytest.raises(SettingsError, match="libpq cannot read it") as refused:
        PostgresConversations("postgresql://u:pass-word@h/x?nonsense=pass-word")
    assert "pass-word" not in str(refused.value)
