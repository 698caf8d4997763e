"""The tool read: a piece of a text file, and a word on what it is when it is not."""

import os
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.read import ReadTool
from tests.tools.running import run


async def test_a_small_file_is_given_whole(workspace: Path):
    (workspace / "a.txt").write_text("one\ntwo\nthré", "utf-8")
    result = await run(ReadTool(), workspace, path="a.txt")
    assert (result.text, result.result_bytes, result.result_truncated) == ("one\ntwo\nthré", 13, False)
    assert (result.outcome, result.error) == (common_pb2.OUTCOME_SUCCEEDED, None)
    assert (result.exit_code, result.http_status) == (None, None)


@pytest.mark.parametrize(
    ("offset", "limit", "text"),
    [
        (1, 1, "one\n\n[Lines 1 to 1; the file goes on: read on with offset 2.]"),
        (2, 1, "two\n\n[Lines 2 to 2; the file goes on: read on with offset 3.]"),
        (2, None, "two\nthree"),
        (3, 5, "three"),
    ],
)
async def test_offset_and_limit_choose_lines(workspace: Path, offset: int, limit: int | None, text: str):
    (workspace / "a.txt").write_text("one\ntwo\nthree", "utf-8")
    result = await run(ReadTool(), workspace, path="a.txt", offset=offset, limit=limit)
    assert result.text == text
    assert not result.result_truncated


@pytest.mark.parametrize(("content", "lines"), [("a\nb\nc\n", 3), ("a\nb\nc", 3), ("a", 1), ("\n", 1)])
async def test_an_offset_past_the_end_is_told_with_the_number_of_lines(workspace: Path, content: str, lines: int):
    (workspace / "a.txt").write_text(content, "utf-8")
    result = await run(ReadTool(), workspace, path="a.txt", offset=lines + 1)
    assert result.error == f"the file has only {lines} lines"
    assert (await run(ReadTool(), workspace, path="a.txt", offset=lines)).error is None


async def test_a_long_file_can_be_read_piece_by_piece(workspace: Path):
    """What the pieces hold, put together, is the file."""
    content = "".join(f"line {number} {'x' * (number % 97)}\n" for number in range(9_000))
    (workspace / "long.txt").write_text(content, "utf-8")
    offset, pieces = 1, []
    while True:
        result = await run(ReadTool(), workspace, path="long.txt", offset=offset)
        piece, _, notice = result.text.partition("\n[Lines ")
        pieces.append(piece)
        if not notice:
            break
        assert result.result_truncated
        offset = int(notice.split("offset ")[1].rstrip(".]"))
    assert "".join(pieces) == content
    assert len(pieces) > 4


async def test_a_line_without_end_is_cut_between_characters(workspace: Path):
    (workspace / "long.txt").write_text("x" + "é" * 100_000, "utf-8")
    result = await run(ReadTool(max_bytes=1_000), workspace, path="long.txt")
    assert result.text == "x" + "é" * 499 + "\n[Line 1 is longer than this tool shows; its rest is left out.]"
    assert (result.result_bytes, result.result_truncated) == (200_001, True)


async def test_an_empty_file_is_told(workspace: Path):
    (workspace / "empty").touch()
    result = await run(ReadTool(), workspace, path="empty")
    assert (result.text, result.result_bytes, result.error) == ("[The file is empty.]", 0, None)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"PK\x03\x04\x00\x00", "the file is binary"),
        (b"text\n" * 20_000 + b"\0", None),
        ("text".encode("utf-16"), "the file is UTF-16 text, and only UTF-8 can be read; convert it first"),
        ("text".encode("utf-32"), "the file is UTF-32 text, and only UTF-8 can be read; convert it first"),
    ],
)
async def test_what_is_no_utf8_text_is_told_and_not_dumped(workspace: Path, content: bytes, error: str | None):
    (workspace / "file").write_bytes(content)
    result = await run(ReadTool(), workspace, path="file")
    assert result.error == error


async def test_binary_content_further_on_is_refused_there(workspace: Path):
    (workspace / "file").write_bytes(b"text\n" * 20_000 + b"\0secret")
    result = await run(ReadTool(), workspace, path="file", offset=20_001)
    assert result.error == "the file is binary"
    assert "secret" not in result.text


async def test_text_in_another_encoding_is_shown_as_far_as_it_goes_and_told(workspace: Path):
    (workspace / "file").write_bytes("grün".encode("latin-1"))
    result = await run(ReadTool(), workspace, path="file")
    assert result.text == "gr\ufffdn\n[The file is not UTF-8 throughout; what is not is shown as \ufffd.]"


async def test_a_fifo_does_not_hang_it(workspace: Path):
    os.mkfifo(workspace / "fifo")
    result = await run(ReadTool(), workspace, path="fifo")
    assert result.error == "the path is not a regular file"


async def test_links_that_stay_inside_are_followed(workspace: Path):
    (workspace / "sub").mkdir()
    (workspace / "sub" / "a.txt").write_text("inside", "utf-8")
    (workspace / "relative").symlink_to("sub/a.txt")
    (workspace / "absolute").symlink_to(workspace / "sub")
    (workspace / "sub" / "up").symlink_to("../relative")
    (workspace / "sub" / "back").symlink_to(workspace / "sub" / "a.txt")
    for path in (
        "relative",
        "absolute/a.txt",
        "sub/up",
        "sub/back",
        "absolute/up",
        str(workspace / "absolute" / "a.txt"),
    ):
        assert (await run(ReadTool(), workspace, path=path)).text == "inside", path


async def test_errors_are_told_in_words(workspace: Path):
    (workspace / "file").write_text("x", "utf-8")
    (workspace / "folder").mkdir()
    told = {
        "missing": "there is no such file or folder",
        "folder": "the path is a folder",
        ".": "the path is a folder",
        "file/x": "a part of the path is not a folder",
        "file/": "a part of the path is not a folder",
        "x" * 300: "the path, or a name in it, is too long",
    }
    for path, error in told.items():
        assert (await run(ReadTool(), workspace, path=path)).error == error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_without_permission_is_told(workspace: Path):
    (workspace / "file").write_text("x", "utf-8")
    (workspace / "file").chmod(0)
    assert (await run(ReadTool(), workspace, path="file")).error == "permission denied"
