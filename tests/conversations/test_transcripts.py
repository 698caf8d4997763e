"""What was said in a session, read in pages by its own caller."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.messages import to_line
from gateway_svc.conversations.said import NONE_KNOWN, Place, Said, entry_of
from gateway_svc.errors import InvalidRequest, NotFound
from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from recording.calls import ToolCall
from service_kit.paging import MAX_PAGE_BYTES
from tests.conversations.test_files import SAID, file_of, made, records_of

BEGINNING = Place(0, 0)


async def pages(state_dir: Path, session_id: str, size: int = 100) -> list[list[pb.TranscriptEntry]]:
    home, after, found = FileConversations(state_dir), BEGINNING, list[list[pb.TranscriptEntry]]()
    while True:
        page = await home.read_said(session_id, "", after, size)
        assert len(page.said) <= size
        found.append(list(map(entry_of, page.said)))
        if page.next is None:
            return found
        assert page.next != after
        after = page.next


def every(found: list[list[pb.TranscriptEntry]]) -> list[pb.TranscriptEntry]:
    return [entry for page in found for entry in page]


def wire(messages: list[Message]) -> list[pb.TranscriptEntry]:
    return [entry_of(Said(number, to_line(message))) for number, message in enumerate(messages, 1)]


@pytest.mark.parametrize("size", [1, 4, 6, 100])
async def test_each_page_goes_on_where_the_one_before_ended(tmp_path, size):
    session_id = await made(tmp_path)
    found = await pages(tmp_path, session_id, size)
    assert every(found) == wire(SAID)
    assert max(map(len, found)) == min(size, len(SAID))
    asked = every(found)[1].model_answer.tool_calls[0]
    assert (asked.tool_call_id, asked.tool_name, asked.arguments) == ("row-1", "bash", '{"command": "ls"}')


async def test_nobody_else_finds_it_and_a_session_in_which_nothing_was_said_is_empty(tmp_path):
    session_id = await made(tmp_path, [])
    home = FileConversations(tmp_path)
    assert (await home.read_said(session_id, "", BEGINNING, 10)).said == []
    owned = file_of(tmp_path, session_id, "session")
    owned.parent.parent.rename(tmp_path / "sessions" / "owner-ada")
    assert (await home.read_said(session_id, "ada", BEGINNING, 10)).said == []
    for stranger in ("bob", ""):
        with pytest.raises(NotFound):
            await home.read_said(session_id, stranger, BEGINNING, 10)
    with pytest.raises(InvalidRequest):
        await home.read_said("", "ada", BEGINNING, 10)


@pytest.mark.parametrize("size", [1, 100])
async def test_damage_costs_its_own_place_alone_and_is_told_once(tmp_path, size):
    session_id = await made(tmp_path)
    path = file_of(tmp_path, session_id, "conversation")
    data, (begin, _) = bytearray(path.read_bytes()), records_of(path)[2]
    data[begin + 30] ^= 1
    path.write_bytes(data)
    found = every(await pages(tmp_path, session_id, size))
    whole = wire(SAID)
    assert found[:2] + found[3:] == whole[:2] + whole[3:]
    assert found[2].unreadable
    assert found[2].number == 0


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_records_that_are_missing_are_told_once_in_their_place(tmp_path, size):
    session_id = await made(tmp_path)
    path = file_of(tmp_path, session_id, "conversation")
    data, (begin, end) = path.read_bytes(), records_of(path)[2]
    path.write_bytes(data[:begin] + data[end:])
    found = every(await pages(tmp_path, session_id, size))
    assert [entry.number for entry in found] == [1, 2, 0, 4, 5, 6]
    assert found[2].unreadable == "records 3 to 3 are missing"


async def test_what_a_running_turn_is_writing_is_not_told_before_it_is_whole(tmp_path):
    session_id = await made(tmp_path)
    path = file_of(tmp_path, session_id, "conversation")
    path.write_bytes(path.read_bytes()[:-3])
    assert every(await pages(tmp_path, session_id, 4)) == wire(SAID[:-1])


async def test_a_page_ends_before_it_is_larger_than_clients_take(tmp_path):
    said: list[Message] = [UserMessage("x" * 2**20) for _ in range(7)]
    found = await pages(tmp_path, await made(tmp_path, said))
    assert every(found) == wire(said)
    sizes = [pb.GetTranscriptResponse(entries=page).ByteSize() for page in found]
    assert len(sizes) > 2
    assert max(sizes) < 4 * 2**20


async def test_an_entry_that_is_larger_than_a_page_is_cut_and_says_by_how_much(tmp_path):
    said: list[Message] = [
        ToolMessage("call_1", "bash", "\u4e16" * 2**21),
        AssistantMessage("y", "z" * MAX_PAGE_BYTES, (ToolCall("row", "call", "bash", "{}"),)),
        UserMessage("thanks"),
    ]
    found = every(await pages(tmp_path, await made(tmp_path, said)))
    assert len(found) == 3
    text = found[0].tool_text.text
    assert set(text) == {"\u4e16"}
    assert len(text.encode()) + found[0].left_out_bytes == 3 * 2**21
    assert found[1].left_out_bytes == 1 + len("rowcallbash{}")
    assert (found[2].user_text, found[2].left_out_bytes) == ("thanks", 0)
    assert max(entry.ByteSize() for entry in found) < MAX_PAGE_BYTES + 1024


def test_what_no_version_knows_is_told_as_such():
    assert entry_of(Said(3, {"assistant": {"tool_calls": 7}})).unreadable == NONE_KNOWN
    assert entry_of(Said(3, {"user": "\ud800"})).user_text == "?"


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=12), st.integers(1, 5))
def test_pages_of_any_size_hold_what_was_said(tmp_path_factory, texts, size):
    folder = tmp_path_factory.mktemp("said")
    said: list[Message] = [UserMessage(text) for text in texts]

    async def read() -> list[pb.TranscriptEntry]:
        return every(await pages(folder, await made(folder, said), size))

    assert asyncio.run(read()) == wire(said)
