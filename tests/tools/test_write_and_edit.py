"""The tools write and edit: a file as a whole, or an exact piece of it, replaced in one step."""

import os
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.edit import EditTool
from gateway_svc.tools.write import WriteTool
from tests.tools.running import run, run_all


async def test_write_makes_a_file_and_its_folders(workspace: Path):
    result = await run(WriteTool(), workspace, path="a/b/c.txt", content="grün\n")
    assert (result.text, result.outcome) == ("Made the file (6 bytes).", common_pb2.OUTCOME_SUCCEEDED)
    assert (workspace / "a/b/c.txt").read_text("utf-8") == "grün\n"


async def test_write_replaces_a_file_and_keeps_its_permissions(workspace: Path):
    (workspace / "run.sh").write_text("old", "utf-8")
    (workspace / "run.sh").chmod(0o750)
    result = await run(WriteTool(), workspace, path="run.sh", content="new")
    assert result.text == "Replaced the file (3 bytes)."
    assert (workspace / "run.sh").read_text("utf-8") == "new"
    assert (workspace / "run.sh").stat().st_mode & 0o7777 == 0o750


async def test_what_a_file_keeps_from_others_its_draft_keeps_from_them_too(workspace: Path, monkeypatch):
    (workspace / ".env").write_text("old", "utf-8")
    (workspace / ".env").chmod(0o600)
    drafts, fchmod = [], os.fchmod

    def look(descriptor: int, mode: int) -> None:
        drafts.append(os.fstat(descriptor).st_mode & 0o777)
        fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", look)
    await run(WriteTool(), workspace, path=".env", content="new")
    assert drafts == [0o600]
    assert (workspace / ".env").stat().st_mode & 0o777 == 0o600


async def test_write_does_not_keep_a_bit_that_gives_another_users_rights(workspace: Path):
    (workspace / "tool").write_text("old", "utf-8")
    (workspace / "tool").chmod(0o4755)
    await run(WriteTool(), workspace, path="tool", content="new")
    assert (workspace / "tool").stat().st_mode & 0o7777 == 0o755


async def test_a_second_name_of_a_file_outside_is_not_written_through(workspace: Path):
    """A hard link cannot be told from a file, so that replacing, not overwriting, is what protects the other name."""
    outside = workspace.parent / "outside.txt"
    outside.write_text("precious", "utf-8")
    (workspace / "link").hardlink_to(outside)
    for tool, arguments in (
        (WriteTool(), {"content": "x"}),
        (EditTool(), {"old_string": "x", "new_string": "y"}),
    ):
        assert (await run(tool, workspace, path="link", **arguments)).error is None
    assert (outside.read_text("utf-8"), (workspace / "link").read_text("utf-8")) == ("precious", "y")


async def test_write_through_a_link_replaces_what_it_leads_to(workspace: Path):
    (workspace / "real").write_text("old", "utf-8")
    (workspace / "link").symlink_to("real")
    await run(WriteTool(), workspace, path="link", content="new")
    assert (workspace / "link").is_symlink()
    assert (workspace / "real").read_text("utf-8") == "new"


async def test_a_read_only_file_and_what_is_no_file_stay(workspace: Path):
    (workspace / "guarded").write_text("old", "utf-8")
    (workspace / "guarded").chmod(0o444)
    (workspace / "folder").mkdir()
    told = {"guarded": "the file is read-only", "folder": "the path is not a regular file"}
    for path, error in told.items():
        assert (await run(WriteTool(), workspace, path=path, content="x")).error == error
    assert (workspace / "guarded").read_text("utf-8") == "old"


async def test_nothing_is_left_behind_when_it_fails(workspace: Path):
    (workspace / "folder").mkdir()
    await run(WriteTool(), workspace, path="folder", content="x")
    await run(WriteTool(max_bytes=3), workspace, path="large", content="xxxx")
    await run(EditTool(), workspace, path="missing", old_string="a", new_string="b")
    assert os.listdir(workspace) == ["folder"]  # noqa: PTH208 - names are wanted


async def test_edit_replaces_the_one_place(workspace: Path):
    (workspace / "a.py").write_bytes(b"x = 1\r\ny = 2\r\n\xff")
    result = await run(EditTool(), workspace, path="a.py", old_string="y = 2", new_string="y = 3")
    assert (result.text, result.error) == ("Replaced 1 place.", None)
    assert (workspace / "a.py").read_bytes() == b"x = 1\r\ny = 3\r\n\xff"


async def test_edit_replaces_every_place_only_when_asked(workspace: Path):
    (workspace / "a").write_text("b a b", "utf-8")
    one = await run(EditTool(), workspace, path="a", old_string="b", new_string="c")
    assert one.error == "old_string is in 2 places: add more of its surroundings, or set replace_all"
    every = await run(EditTool(), workspace, path="a", old_string="b", new_string="c", replace_all=True)
    assert every.text == "Replaced 2 places."
    assert (workspace / "a").read_text("utf-8") == "c a c"


@pytest.mark.parametrize(
    ("content", "old", "new", "error"),
    [
        (b"text", "absent", "x", "old_string is not in the file"),
        (b"a\r\nb", "a\nb", "x", "old_string is not in the file; the file's lines end in CR LF"),
        (b"text", "text", "text", "old_string and new_string are the same"),
        (b"te\0xt", "t", "x", "the file is binary"),
        (b"x" * 101, "x", "y", "the file is larger than 100 bytes"),
        (b"x" * 100, "x", "yy", "old_string is in 100 places: add more of its surroundings, or set replace_all"),
        (b"xz", "x", "y" * 100, "the file would be larger than 100 bytes"),
    ],
)
async def test_edit_says_why_it_did_nothing(workspace: Path, content: bytes, old: str, new: str, error: str):
    (workspace / "a").write_bytes(content)
    result = await run(EditTool(max_bytes=100), workspace, path="a", old_string=old, new_string=new)
    assert (result.error, result.outcome) == (error, common_pb2.OUTCOME_FAILED)
    assert (workspace / "a").read_bytes() == content


async def test_edits_side_by_side_lose_nothing(workspace: Path):
    """A model may change one file by several calls of one step."""
    (workspace / "a").write_text("".join(f"<{number}>" for number in range(30)), "utf-8")
    edits: list[dict[str, object]] = [
        {"path": "a", "old_string": f"<{number}>", "new_string": f"[{number}]"} for number in range(30)
    ]
    results = await run_all(EditTool(), workspace, *edits)
    assert {result.error for result in results} == {None}
    assert (workspace / "a").read_text("utf-8") == "".join(f"[{number}]" for number in range(30))


async def test_an_edit_that_another_process_overtakes_is_told(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process holds no lock of ours: its change must not be lost in silence."""
    (workspace / "a").write_text("old", "utf-8")
    tool = EditTool()
    read = tool._read

    def read_then_change(place):
        found = read(place)
        (workspace / "a").write_text("other", "utf-8")
        return found

    monkeypatch.setattr(tool, "_read", read_then_change)
    result = await run(tool, workspace, path="a", old_string="old", new_string="new")
    assert result.error == "the file changed meanwhile; read it again"
    assert (workspace / "a").read_text("utf-8") == "other"
