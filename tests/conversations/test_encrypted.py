"""Sessions in files that are encrypted: nothing is in clear, what was changed is told, each costs itself alone."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.__main__ import program
from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.files.check import check
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.messages import to_line
from gateway_svc.conversations.said import Place
from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Damaged, KeyMissing, SettingsError
from gateway_svc.messages import AssistantMessage, Message, UserMessage
from recording.framing import encode_record
from recording.key_file import Key
from tests.conversations.test_files import SAID, file_of, records_of
from tests.support.command_line import Result, invoke
from tests.support.examples import examples

ONE, TWO = Key("one", b"1" * 32), Key("two", b"2" * 32)
CLEAR, KEYS, ROTATED = Keys(), Keys([ONE]), Keys([TWO, ONE])
SECRETS = (b"There is a file", b"be brief", b"a title", b'"user"', b'"revision"')


async def made(folder: Path, keys: Keys = KEYS, said: list[Message] = SAID) -> str:
    home = FileConversations(folder, keys=keys)
    chosen = pb.SessionSettings(system_prompt="be brief", labels={"title": "a title"})
    state = SessionState(id=str(uuid7()), revision=1, settings=chosen)
    await home.create(state, synced=True)
    await add(folder, state.id, said, keys)
    return state.id


async def add(folder: Path, session_id: str, said: list[Message], keys: Keys = KEYS) -> None:
    lease = await FileConversations(folder, keys=keys).open(session_id)
    for message in said:
        lease.append(message)
    lease.note_sums()
    await lease.save()
    await lease.close()


async def read(folder: Path, session_id: str, keys: Keys = KEYS) -> tuple[list[Message], str]:
    lease = await FileConversations(folder, keys=keys).open(session_id)
    lease.give_up()
    return lease.history.messages, lease.history.unreadable


def in_clear(folder: Path) -> list[str]:
    """What is content in the files of a folder, and can be read without a key."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.suffix in (".session", ".conversation", ".draft")]
    return [secret.decode() for secret in SECRETS if any(secret in data for data in files)]


async def test_nothing_of_a_session_is_in_clear_and_all_of_it_comes_back(tmp_path):
    session_id = await made(tmp_path)
    assert in_clear(tmp_path) == []
    home = FileConversations(tmp_path, keys=KEYS)
    assert await read(tmp_path, session_id) == (SAID, "")
    state = await home.state(session_id, None)
    assert (state.settings.system_prompt, state.settings.labels["title"]) == ("be brief", "a title")
    assert [listed.id for listed in (await home.list_page(9, None, None)).states] == [session_id]
    page = await home.read_said(session_id, "", Place(0, 0), 100)
    assert [said.line for said in page.said] == [json.loads(json.dumps(to_line(message))) for message in SAID]
    assert [session async for session in home.unused_since(2**60)] == [session_id]
    await home.remove(session_id)
    assert [path for path in (tmp_path / "sessions").rglob("*") if path.stem == session_id] == []


async def test_a_session_of_before_stays_readable_and_is_encrypted_when_its_next_turn_begins(tmp_path):
    session_id = await made(tmp_path, CLEAR)
    assert in_clear(tmp_path)
    home = FileConversations(tmp_path, keys=KEYS)
    assert (await home.state(session_id, None)).settings.system_prompt == "be brief"
    assert len((await home.read_said(session_id, "", Place(0, 0), 100)).said) == len(SAID)
    assert in_clear(tmp_path), "who looks changes nothing"
    await add(tmp_path, session_id, [UserMessage("and now?")])
    assert in_clear(tmp_path) == []
    assert await read(tmp_path, session_id) == ([*SAID, UserMessage("and now?")], "")


async def test_a_page_that_begins_where_the_file_was_in_clear_goes_on_in_the_encrypted_one(tmp_path):
    session_id = await made(tmp_path, CLEAR)
    home = FileConversations(tmp_path, keys=KEYS)
    for size in range(1, len(SAID)):
        first = await FileConversations(tmp_path, keys=KEYS).read_said(session_id, "", Place(0, 0), size)
        assert first.next
        if size == 1:
            stale = first.next
    await (await home.open(session_id)).close()
    rest = await home.read_said(session_id, "", stale, 100)
    assert [said.number for said in rest.said] == [2, 3, 4, 5, 6]


async def test_keys_are_rotated_and_the_old_one_is_needed_until_all_is_encrypted_anew(tmp_path):
    session_id = await made(tmp_path)
    await add(tmp_path, session_id, [UserMessage("more")], ROTATED)
    assert await read(tmp_path, session_id, ROTATED) == ([*SAID, UserMessage("more")], "")
    with pytest.raises(KeyMissing, match=f"{session_id} is encrypted by the key one"):
        await read(tmp_path, session_id, Keys([TWO]))
    await FileConversations(tmp_path, keys=ROTATED).rewrite(session_id)
    assert await read(tmp_path, session_id, Keys([TWO])) == ([*SAID, UserMessage("more")], "")


async def test_a_session_without_its_key_costs_itself_alone_and_is_there_again_with_it(tmp_path):
    lost, kept = await made(tmp_path, KEYS), await made(tmp_path, ROTATED)
    home = FileConversations(tmp_path, keys=Keys([TWO]))
    assert [state.id for state in (await home.list_page(9, None, None)).states] == [kept]
    for ask in (
        lambda: home.open(lost),
        lambda: home.state(lost, None),
        lambda: home.rewrite(lost),
        lambda: home.read_said(lost, "", Place(0, 0), 9),
    ):
        with pytest.raises(KeyMissing, match=f"{lost} is encrypted by the key one"):
            await ask()
    told = {found.session_id: found for found in check(tmp_path / "sessions", Keys([TWO]))}
    assert told.keys() == {lost}
    assert (told[lost].is_damage, "the key one" in told[lost].told) == (True, True)
    assert await read(tmp_path, lost, ROTATED) == (SAID, "")
    await home.remove(lost)


async def test_a_home_with_encrypted_sessions_is_not_opened_without_keys_or_with_others_of_their_ids(tmp_path):
    await made(tmp_path)
    with pytest.raises(SettingsError, match="GATEWAY_SESSIONS_KEY_FILE: is not set"):
        FileConversations(tmp_path)
    with pytest.raises(SettingsError, match="GATEWAY_SESSIONS_KEY_FILE: its key one is another"):
        FileConversations(tmp_path, keys=Keys([Key("one", b"9" * 32)]))
    session_id = await made(tmp_path)
    (tmp_path / "sessions" / "keys.json").write_text("gone")
    with pytest.raises(KeyMissing, match="GATEWAY_SESSIONS_KEY_FILE is not set"):
        await read(tmp_path, session_id, CLEAR)


async def test_a_torn_last_record_is_cut_and_the_rest_stays(tmp_path):
    """As a kill in the middle of its write leaves it: nobody was told of it."""
    session_id = await made(tmp_path, said=SAID[:5])
    path = file_of(tmp_path, session_id, "conversation")
    whole = path.read_bytes()
    lease = await FileConversations(tmp_path, keys=KEYS).open(session_id)
    lease.append(SAID[5])
    lease.give_up()
    longer = path.read_bytes()
    for size in range(len(whole), len(longer), 5):
        path.write_bytes(longer[:size])
        assert await read(tmp_path, session_id) == (SAID[:5], "")


def moved(path: Path, at: int, to: int) -> bytes:
    """A conversation whose record `at` stands, whole, in the place of record `to` (from 0) under that one's number."""
    data, places = path.read_bytes(), records_of(path)
    start, stop = places[at]
    head, payload = data[start : start + 23], data[start + 23 : stop]
    other = encode_record(to + 1, head[20], payload, int.from_bytes(head[21:23], "little"))
    return data[: places[to][0]] + other + data[places[to][1] :]


@pytest.mark.parametrize(("at", "to"), [(0, 4), (4, 0), (1, 3), (3, 1), (5, 3)])
async def test_a_record_that_was_moved_within_its_session_is_told(tmp_path, at, to):
    session_id = await made(tmp_path)
    path = file_of(tmp_path, session_id, "conversation")
    path.write_bytes(moved(path, at, to))
    history, unreadable = await read(tmp_path, session_id)
    assert f"record {to + 1} cannot be decrypted" in unreadable
    assert SAID[to] not in history or SAID[at] == SAID[to]
    page = await FileConversations(tmp_path, keys=KEYS).read_said(session_id, "", Place(0, 0), 100)
    assert "cannot be decrypted" in page.said[to].line["damaged"]


async def test_what_is_another_sessions_or_in_clear_is_none_of_an_encrypted_session(tmp_path):
    one, other = await made(tmp_path), await made(tmp_path)
    for kind in ("conversation", "session"):
        file_of(tmp_path, one, kind).write_bytes(file_of(tmp_path, other, kind).read_bytes())
    home = FileConversations(tmp_path, keys=KEYS)
    with pytest.raises(Damaged, match=f"^session {one} cannot be decrypted: it was changed, or is from elsewhere$"):
        await home.open(one)
    assert [state.id for state in (await home.list_page(9, None, None)).states] == [other]
    forged = encode_record(3, 2, json.dumps(to_line(AssistantMessage("forged"))).encode(), 1)
    path = file_of(tmp_path, other, "conversation")
    data, (start, stop) = path.read_bytes(), records_of(path)[2]
    path.write_bytes(data[:start] + forged + data[stop:])
    history, unreadable = await read(tmp_path, other)
    assert "record 3 is in clear" in unreadable
    assert AssistantMessage("forged") not in history
    await FileConversations(tmp_path, keys=KEYS).rewrite(other)
    assert "record 3 is in clear" in (await read(tmp_path, other))[1], "and nothing makes it genuine"


async def test_a_session_that_another_owner_is_given_is_not_the_others(tmp_path):
    home = FileConversations(tmp_path, keys=KEYS)
    state = SessionState(id=str(uuid7()), revision=1, owner="ada")
    await home.create(state, synced=True)
    (tmp_path / "sessions" / "owner-ada").rename(tmp_path / "sessions" / "owner-eve")
    with pytest.raises(Damaged):
        await home.state(state.id, "eve")


async def test_an_older_prompt_does_not_pass_for_the_sessions(tmp_path):
    session_id = await made(tmp_path)
    path = file_of(tmp_path, session_id, "session")
    before = path.read_bytes()[records_of(path)[1][0] :]
    lease = await FileConversations(tmp_path, keys=KEYS).open(session_id)
    lease.state.settings.system_prompt = "be careful"
    await lease.save()
    await lease.close()
    data = path.read_bytes()
    for prompt in (before, b""):
        path.write_bytes(data[: records_of(path)[1][0]] + prompt)
        with pytest.raises(Damaged, match="another prompt"):
            await FileConversations(tmp_path, keys=KEYS).open(session_id)
        path.write_bytes(data)


@pytest.fixture(scope="module")
def whole_session(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, asyncio.run(made(folder))


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150), deadline=None)
@given(st.data())
def test_whatever_is_changed_in_an_encrypted_file_is_told_and_nothing_false_is_read(whole_session, tmp_path, data):
    """Bits, cuts, pieces that are moved or written twice: never another message, and never a session without a word."""
    source, session_id = whole_session
    kind = data.draw(st.sampled_from(["conversation", "session"]))
    original = file_of(source, session_id, kind).read_bytes()
    changed, at = bytearray(original), data.draw(st.integers(0, len(original) - 1))
    to, size = data.draw(st.integers(0, len(original))), data.draw(st.integers(1, 200))
    match data.draw(st.sampled_from(["flip", "cut", "copy", "swap", "zeros", "remove"])):
        case "flip":
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del changed[at:]
        case "copy":
            changed[to:to] = original[at : at + size]
        case "swap":
            changed[to : to + size] = original[at : at + size]
        case "zeros":
            changed[at : at + size] = bytes(len(changed[at : at + size]))
        case "remove":
            del changed[at : at + size]
    for name in ("conversation", "session"):
        path = file_of(tmp_path, session_id, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(changed) if name == kind else file_of(source, session_id, name).read_bytes())
    try:
        history, unreadable = asyncio.run(read(tmp_path, session_id))
    except (Damaged, KeyMissing):
        return
    assert [message for message in history if message in SAID] == [message for message in SAID if message in history]
    assert unreadable or history == SAID, "behind the end of a file there may be what a crash has left"


async def sessions(*arguments: str) -> Result:
    return await asyncio.to_thread(invoke, program, ["sessions", *arguments])


async def test_the_commands_encrypt_all_sessions_and_put_them_in_clear(tmp_path, monkeypatch):
    ids, keys = [await made(tmp_path, CLEAR) for _ in range(3)], tmp_path / "keys"
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    assert "GATEWAY_SESSIONS_KEY_FILE: is not set" in (await sessions("encrypt")).stderr
    monkeypatch.setenv("GATEWAY_SESSIONS_KEY_FILE", str(keys))
    keys.write_text(f"one {ONE.key.hex()}\n")
    keys.chmod(0o600)
    assert "it is in clear" in (await sessions("check")).output
    done = await sessions("encrypt")
    assert (done.exit_code, done.output) == (0, "3 sessions are encrypted by the key one\n")
    assert in_clear(tmp_path) == []
    assert (await sessions("check")).output == "no damage found\n"
    lines = [json.loads(line) for line in (await sessions("export", ids[0])).output.splitlines()]
    assert lines[0]["session"]["settings"]["system_prompt"] == "be brief"
    assert len(lines) == 1 + len(SAID)
    keys.write_text(f"two {TWO.key.hex()}\none {ONE.key.hex()}\n")
    assert (await sessions("encrypt")).exit_code == 0
    assert json.loads((tmp_path / "sessions" / "keys.json").read_text()).keys() == {"two"}
    keys.write_text(f"two {TWO.key.hex()}\n")
    assert (await sessions("check")).exit_code == 0
    assert await read(tmp_path, ids[1], Keys([TWO])) == (SAID, "")
    done = await sessions("decrypt")
    assert (done.exit_code, done.output) == (0, "3 sessions are in clear\n")
    monkeypatch.delenv("GATEWAY_SESSIONS_KEY_FILE")
    for session_id in ids:
        assert await read(tmp_path, session_id, CLEAR) == (SAID, "")


async def test_a_session_that_cannot_be_encrypted_is_told_and_keeps_none_of_the_others_from_it(tmp_path, monkeypatch):
    held, good, lost = await made(tmp_path, CLEAR), await made(tmp_path, CLEAR), await made(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text(f"two {TWO.key.hex()}\n")
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_SESSIONS_KEY_FILE", str(keys))
    lease = await FileConversations(tmp_path, keys=ROTATED).open(held)
    done = await sessions("encrypt")
    await lease.close()
    assert done.exit_code == 1
    assert f"session {held}: it is in use" in done.stderr
    assert f"\nsession {lost} is encrypted by the key one" in f"\n{done.stderr}"
    assert f"damage: session {lost} is encrypted by the key one" in (await sessions("check")).output
    assert "keep all keys until then" in done.output
    assert await read(tmp_path, good, Keys([TWO])) == (SAID, "")
    assert await read(tmp_path, lost, ROTATED) == (SAID, ""), "the key is still known"


async def test_sessions_are_not_put_in_clear_beside_a_gateway_that_encrypts(tmp_path, monkeypatch):
    session_id, keys = await made(tmp_path), tmp_path / "keys"
    keys.write_text(f"one {ONE.key.hex()}\n")
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_SESSIONS_KEY_FILE", str(keys))
    running, other = FileConversations(tmp_path, keys=KEYS), FileConversations(tmp_path, keys=KEYS)
    running.start()
    other.start()
    await other.aclose()
    done = await sessions("decrypt")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "gateways that run encrypt by the key one: end them first" in done.stderr
    assert in_clear(tmp_path) == []
    with pytest.raises(SettingsError, match="is not set"):
        FileConversations(tmp_path)
    await running.aclose()
    assert (await sessions("decrypt")).exit_code == 0
    assert await read(tmp_path, session_id, CLEAR) == (SAID, "")


async def test_a_key_stays_noted_as_long_as_a_gateway_encrypts_by_it(tmp_path, monkeypatch):
    await made(tmp_path)
    keys, noted = tmp_path / "keys", tmp_path / "sessions" / "keys.json"
    keys.write_text(f"two {TWO.key.hex()}\none {ONE.key.hex()}\n")
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_SESSIONS_KEY_FILE", str(keys))
    running = FileConversations(tmp_path, keys=KEYS)
    running.start()
    done = await sessions("encrypt")
    assert done.exit_code == 1
    assert "gateways that run encrypt by the key one: restart them with the new key on top" in done.stdout
    assert json.loads(noted.read_text()).keys() == {"one", "two"}
    assert json.loads((await sessions("encrypt", "--json")).stdout)["keys_in_use"] == ["one"]
    await running.aclose()
    assert (await sessions("encrypt")).exit_code == 0
    assert json.loads(noted.read_text()).keys() == {"two"}


async def test_a_gateway_that_starts_beside_the_command_notes_its_key_again(tmp_path, monkeypatch):
    await made(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text(f"one {ONE.key.hex()}\n")
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_SESSIONS_KEY_FILE", str(keys))
    starting = FileConversations(tmp_path, keys=KEYS)
    assert (await sessions("decrypt")).exit_code == 0
    starting.start()
    with pytest.raises(SettingsError, match="is not set"):
        FileConversations(tmp_path)
    await starting.aclose()


async def test_a_wrong_key_of_the_same_id_is_refused_and_is_no_damage(tmp_path, monkeypatch):
    session_id, keys = await made(tmp_path), tmp_path / "keys"
    keys.write_text(f"one {TWO.key.hex()}\n")
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GATEWAY_SESSIONS_KEY_FILE", str(keys))
    for command in (["check"], ["check", "--json"], ["export", session_id], ["encrypt"], ["decrypt"]):
        done = await sessions(*command)
        assert (done.exit_code, done.stdout) == (2, ""), command
        assert "GATEWAY_SESSIONS_KEY_FILE: its key one is another than the one of this id" in done.stderr
    assert await read(tmp_path, session_id) == (SAID, "")


async def test_damage_of_before_stays_damage_and_is_not_in_clear(tmp_path):
    session_id = await made(tmp_path, CLEAR)
    path = file_of(tmp_path, session_id, "conversation")
    data = bytearray(path.read_bytes())
    data[records_of(path)[3][0] + 30] ^= 1
    path.write_bytes(data)
    before = await read(tmp_path, session_id, CLEAR)
    after = await read(tmp_path, session_id)
    assert in_clear(tmp_path) == []
    assert after[0] == before[0]
    assert "damaged" in before[1]
    assert "damaged" in after[1]
