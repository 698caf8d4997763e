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
    assert [listed.id for listed in await here.list_page(9, None, "ada")] == [session_id]
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
    assert await read(home(), ids[0]) == (SAID, "")
    done = await asyncio.to_thread(invoke, program, ["sessions", "decrypt"])
    assert (done.exit_code, "3 sessions are in clear\n" in done.output) == (0, True)
    for session_id in ids:
        assert await read(home(CLEAR), session_id) == (SAID, "")
