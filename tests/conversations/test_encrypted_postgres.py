"""Sessions in PostgreSQL that are encrypted: no column shows what was said, and what was changed there is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import psycopg
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.__main__ import program
from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.postgres.calls import Answer, Call, Calls
from gateway_svc.conversations.postgres.store import PostgresConversations
from gateway_svc.conversations.said import Place
from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Damaged, KeyMissing, SettingsError
from gateway_svc.messages import Message, UserMessage
from recording.key_file import Key
from tests.conversations.test_files import SAID
from tests.support.command_line import invoke
from tests.support.postgres import *  # noqa: F403 - fixtures

pytestmark = pytest.mark.postgres

ONE, TWO = Key("one", b"1" * 32), Key("two", b"2" * 32)
CLEAR, KEYS, ROTATED = Keys(), Keys([ONE]), Keys([TWO, ONE])

Home = Callable[[Keys], PostgresConversations]


@pytest.fixture
async def home(postgres_database) -> AsyncIterator[Home]:
    async with AsyncExitStack() as stack:

        def open_home(keys: Keys = KEYS) -> PostgresConversations:
            opened = PostgresConversations(postgres_database, keys=keys)
            stack.push_async_callback(opened.aclose)
            return opened

        yield open_home


async def made(home: PostgresConversations, owner: str = "") -> str:
    chosen = pb.SessionSettings(system_prompt="be brief", labels={"title": "a title"})
    state = SessionState(id=str(uuid7()), revision=1, settings=chosen, owner=owner)
    await home.create(state, synced=True)
    await add(home, state.id, SAID)
    return state.id


async def add(home: PostgresConversations, session_id: str, said: list[Message]) -> None:
    lease = await home.open(session_id)
    for message in said:
        lease.append(message)
    lease.note_sums()
    await lease.save()
    lease.note_sums()
    await lease.close()


async def read(home: PostgresConversations, session_id: str) -> tuple[list[Message], str]:
    lease = await home.open(session_id)
    await lease.close()
    return list(lease.history.messages), lease.history.unreadable


def query(url: str, sql: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


def in_clear(url: str) -> list[str]:
    """What of the rows is JSON in clear."""
    sql = """SELECT 'record' FROM conversation_records WHERE get_byte(payload, 0) = 123
        UNION SELECT 'state' FROM conversations WHERE get_byte(state, 0) = 123
        UNION SELECT 'prompt' FROM conversations WHERE length(prompt) > 0 AND get_byte(prompt, 0) = 123
        UNION SELECT 'sums' FROM conversations WHERE sums IS NOT NULL AND get_byte(sums, 0) = 123 ORDER BY 1"""
    return [str(row[0]) for row in query(url, sql)]


async def test_no_column_shows_what_was_said_and_all_of_it_comes_back(home, postgres_database):
    here = home()
    session_id = await made(here, "ada")
    assert in_clear(postgres_database) == []
    assert await read(home(), session_id) == (SAID, "")
    state = await here.state(session_id, "ada")
    assert (state.settings.system_prompt, state.settings.labels["title"]) == ("be brief", "a title")
    assert [listed.id for listed in (await here.list_page(9, None, "ada")).states] == [session_id]
    assert len((await here.read_said(session_id, "ada", Place(0, 0), 100)).said) == len(SAID)


async def test_sessions_of_before_are_encrypted_when_their_next_turn_begins_and_keys_are_rotated(
    home, postgres_database
):
    session_id = await made(home(CLEAR))
    assert in_clear(postgres_database) == ["prompt", "record", "state", "sums"]
    keyed = home()
    assert len((await keyed.read_said(session_id, "", Place(0, 0), 100)).said) == len(SAID)
    await add(keyed, session_id, [UserMessage("and now?")])
    assert in_clear(postgres_database) == []
    said = [*SAID, UserMessage("and now?")]
    assert await read(home(), session_id) == (said, "")
    with pytest.raises(SettingsError, match="GATEWAY_SESSIONS_KEY_FILE: is not set"):
        home(CLEAR)
    with pytest.raises(SettingsError, match="its key one is another"):
        home(Keys([Key("one", b"9" * 32)]))
    for ask in (home(Keys([TWO])).open, lambda name: home(Keys([TWO])).state(name, None), home(Keys([TWO])).rewrite):
        with pytest.raises(KeyMissing, match=f"{session_id} is encrypted by the key one"):
            await ask(session_id)
    await home(ROTATED).rewrite(session_id)
    assert await read(home(Keys([TWO])), session_id) == (said, "")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE conversation_records SET payload = set_byte(payload, 40, 0) WHERE number = 2", "record 2 cannot be"),
        (
            "UPDATE conversation_records AS one SET payload = other.payload FROM conversation_records AS other "
            "WHERE one.number IN (1, 5) AND other.number = 6 - one.number",
            "record 1 cannot be decrypted: it was changed, or is from elsewhere; record 5",
        ),
        ("UPDATE conversation_records SET kind = 3 WHERE number = 6", "record 6 cannot be decrypted"),
        ('UPDATE conversation_records SET payload = \'{"user":"forged"}\' WHERE number = 1', "record 1 is in clear"),
        ("DELETE FROM conversation_records WHERE number = 2", "records 2 to 2 are missing"),
        (
            "WITH gone AS (DELETE FROM conversation_records WHERE number > 3) UPDATE conversations SET records = 3",
            "its last 3 records are missing",
        ),
        (
            "WITH gone AS (DELETE FROM conversation_records) UPDATE conversations SET records = 0, bytes = 0",
            "its last 6 records are missing",
        ),
    ],
)
async def test_records_that_were_changed_moved_forged_or_removed_are_told(home, postgres_database, change, told):
    session_id = await made(home())
    query(postgres_database, change)
    history, unreadable = await read(home(), session_id)
    assert told in unreadable
    assert UserMessage("forged") not in history
    await add(home(), session_id, [UserMessage("what was that?")])
    assert (await read(home(), session_id))[0][-1] == UserMessage("what was that?")


@pytest.mark.parametrize("column", ["state", "prompt", "owner", "sums"])
async def test_what_a_session_is_and_whose_cannot_be_changed_or_taken_from_another(home, postgres_database, column):
    one, other = await made(home(), "ada"), await made(home(), "eve")
    query(
        postgres_database,
        f"UPDATE conversations AS one SET {column} = other.{column} FROM conversations AS other "
        "WHERE one.id = %s AND other.id = %s",
        one,
        other,
    )
    with pytest.raises(Damaged, match=one):
        await home().open(one)
    assert await read(home(), other) == (SAID, "")


async def test_the_commands_encrypt_all_sessions_and_put_them_in_clear(home, postgres_database, tmp_path, monkeypatch):
    ids = [await made(home(CLEAR)) for _ in range(3)]
    keys = tmp_path / "keys"
    keys.write_text(f"one {ONE.key.hex()}\n")
    monkeypatch.setenv("GATEWAY_SESSIONS", postgres_database)
    monkeypatch.setenv("GATEWAY_SESSIONS_KEY_FILE", str(keys))
    done = await asyncio.to_thread(invoke, program, ["sessions", "encrypt"])
    assert (done.exit_code, "3 sessions are encrypted by the key one\n" in done.output) == (0, True)
    assert in_clear(postgres_database) == []
    running = home()
    assert await read(running, ids[0]) == (SAID, "")
    done = await asyncio.to_thread(invoke, program, ["sessions", "decrypt"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "gateways that run encrypt by the key one: end them first" in done.stderr
    assert in_clear(postgres_database) == []
    with pytest.raises(SettingsError, match="is not set"):
        home(CLEAR)
    keys.write_text(f"two {TWO.key.hex()}\none {ONE.key.hex()}\n")
    done = await asyncio.to_thread(invoke, program, ["sessions", "encrypt"])
    assert (done.exit_code, "encrypt by the key one: restart them" in done.stdout) == (1, True)
    assert query(postgres_database, "SELECT id FROM conversation_keys ORDER BY id") == [("one",), ("two",)]
    await running.aclose()
    done = await asyncio.to_thread(invoke, program, ["sessions", "encrypt"])
    assert done.exit_code == 0
    assert query(postgres_database, "SELECT id FROM conversation_keys") == [("two",)]
    starting = home(ROTATED)
    done = await asyncio.to_thread(invoke, program, ["sessions", "decrypt"])
    assert (done.exit_code, "3 sessions are in clear\n" in done.output) == (0, True)
    for session_id in ids:
        assert await read(home(CLEAR), session_id) == (SAID, "")
    assert query(postgres_database, "SELECT id FROM conversation_keys") == []
    starting.start()  # it notes its key as it joins
    async with asyncio.timeout(30):
        while query(postgres_database, "SELECT id FROM conversation_keys") != [("two",)]:
            await asyncio.sleep(0.05)


CANARY = b"sentinel-of-the-user"


def echoing(home: PostgresConversations, hold: asyncio.Event | None = None, status: bytes | None = None) -> None:
    """Has a home answer each call with what it asks, once `hold` is set, or with a status."""

    async def answer(call: Call) -> Answer:
        if call.error is not None:
            return Answer(None, str(call.error).encode())
        if hold is not None:
            await hold.wait()
        return Answer(None, status) if status else Answer(b"heard: " + call.request, None)

    assert home.calls is not None
    home.calls.answer = answer
    home.start()


async def others_of(home: PostgresConversations, count: int) -> Calls:
    """The calls of a home, once it sees so many others."""
    assert home.calls is not None
    async with asyncio.timeout(30):
        while len(await home.calls.alive()) < count:
            await asyncio.sleep(0.05)
    return home.calls


def passed_on(url: str) -> bytes:
    """All that the tables of calls show."""
    rows = query(url, "SELECT * FROM gateway_calls") + query(url, "SELECT * FROM gateway_answers")
    return b"\n".join(
        bytes(value) if isinstance(value, bytes) else str(value).encode() for row in rows for value in row
    )


async def until_answered(url: str, count: int) -> None:
    async with asyncio.timeout(30):
        while query(url, "SELECT count(*) FROM gateway_answers") != [(count,)]:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("status", [None, CANARY])
async def test_a_call_that_is_passed_on_shows_nothing_in_the_tables(home, postgres_database, status):
    hold = asyncio.Event()
    echoing(home(ROTATED), status=status)  # its first key is another
    echoing(home(), hold, status)
    calls = await others_of(home(), 2)
    asking = asyncio.create_task(calls.ask(Call("/Method", CANARY, '{"name": "ada"}'), lambda answer: False))
    await until_answered(postgres_database, 1)
    shown = passed_on(postgres_database)
    assert (b"/Method" in shown, CANARY in shown) == (True, False)
    hold.set()
    expected = (None, CANARY) if status else (b"heard: " + CANARY, None)
    assert [answer[:2] for answer in await asking] == [expected, expected]
    assert [answer.error for answer in asking.result()] == [None, None]


async def test_a_gateway_that_lacks_the_key_says_so_and_hides_no_other_answer(home, postgres_database):
    without = home(CLEAR)  # as long as it runs on; at a start it would be refused
    echoing(without)
    keyed = home()
    echoing(keyed)
    calls = await others_of(keyed, 1)
    (answer,) = await calls.ask(Call("/Method", CANARY, ""), lambda answer: True)
    assert (answer.response, answer.status) == (None, None)
    with pytest.raises(KeyMissing, match="cannot read calls that the key one encrypts: all gateways"):
        raise answer.error or AssertionError
    (answer,) = await (await others_of(without, 1)).ask(Call("/Method", CANARY, ""), lambda answer: True)
    assert b"passes calls on in clear: all gateways that share sessions need the same" in (answer.status or b"")
    echoing(home())
    calls = await others_of(keyed, 2)
    (answer,) = await calls.ask(Call("/Method", CANARY, ""), lambda answer: True)
    assert answer.response == b"heard: " + CANARY, "what cannot be read is never enough"


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("gateway_calls", "NEW.caller := '{}'", "a call of gateway 2 cannot be decrypted: it was changed"),
        ("gateway_calls", "NEW.method := '/Other'", "a call of gateway 2 cannot be decrypted"),
        ("gateway_calls", "NEW.asked_by := 3", "a call of gateway 3 cannot be decrypted"),
        ("gateway_calls", "NEW.request := NEW.request || '1'", "a call of gateway 2 cannot be decrypted"),
        ("gateway_calls", "NEW.request := 'forged'", "gateway 1 cannot read calls"),
        ("gateway_answers", "NEW.answer := NEW.answer || '1'", "the answer of gateway 1 of those that share sessions"),
        ("gateway_answers", "NEW.answer := 'forged'", "the answer of gateway 1 of those that share sessions"),
        ("gateway_answers", "NEW.answer := NULL; NEW.status := 'forged'", "gateway 1 cannot read calls"),
    ],
)
async def test_a_call_that_is_changed_on_its_way_is_an_error_of_its_own(home, postgres_database, table, change, told):
    first = home()
    echoing(first)
    await others_of(first, 0)
    second = home()
    echoing(second)
    calls = await others_of(second, 1)
    query(
        postgres_database,
        f"CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {change}; RETURN NEW; END $$",
    )
    query(postgres_database, f"CREATE TRIGGER change BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION change()")
    (answer,) = await calls.ask(Call("/Method", CANARY, '{"name": "ada"}'), lambda answer: True)
    assert told in (str(answer.error) if answer.error else (answer.status or b"").decode())
    query(postgres_database, f"DROP TRIGGER change ON {table}")
    (answer,) = await calls.ask(Call("/Method", CANARY, '{"name": "ada"}'), lambda answer: True)
    assert answer.response == b"heard: " + CANARY
