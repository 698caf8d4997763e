"""No path, link or race leads out of the workspace."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools import Tool, ToolKind, kinds
from gateway_svc.tools.edit import EditTool
from gateway_svc.tools.files import Files, confine
from gateway_svc.tools.glob import GlobTool
from gateway_svc.tools.grep import GrepTool
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.workers import Workers
from gateway_svc.tools.write import WriteTool
from recording.calls import ToolResult
from recording.show import Show
from tests.tools.attack_paths import INSIDE, REFUSED
from tests.tools.minefield import SECRET, lay, surroundings
from tests.tools.running import run
from tests.tools.test_kinds import added  # noqa: F401 - a fixture

FILLED: dict[tuple[str, str], object] = {
    ("edit", "old_string"): SECRET[:6],
    ("edit", "replace_all"): True,
    ("glob", "pattern"): "**",
    ("grep", "pattern"): "canary|root",
}
"""What an argument is where any text would find nothing."""
FILE_CALLS: dict[str, tuple[Callable[[], Tool], dict[str, object]]] = {
    "read": (ReadTool, {}),
    "write": (WriteTool, {"content": "written"}),
    "edit": (EditTool, {"old_string": SECRET[:6], "new_string": "edited", "replace_all": True}),
}
FOLDERS = {"sub", ".", "{workspace}", "sub/inside.txt/.."}
READS_FOLDERS = {"glob", "grep", "tally"}


@pytest.fixture
def mined(workspace: Path) -> Path:
    lay(workspace)
    return workspace


def filled(path: str, workspace: Path) -> str:
    return path.replace("{outside}", str(workspace.parent)).replace("{workspace}", str(workspace))


def text_parameters(kind: ToolKind) -> list[tuple[str, bool]]:
    """The names of its parameters that take text, and whether each says that it is a path."""
    properties = kind.parameters.model_json_schema()["properties"]
    return [(name, how is Show.PATH) for name, how in kind.shown.items() if "string" in str(properties[name])]


def arguments_for(kind: ToolKind) -> dict[str, object]:
    """Good arguments for all that must be given."""
    wanted = {name for name, field in kind.parameters.model_fields.items() if field.is_required()}
    given = {name: value for (tool, name), value in FILLED.items() if tool == kind.name}
    return {**dict.fromkeys(wanted, "written"), **given}


FAILURES = (common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_INVALID_CALL)


async def leaks(kind: ToolKind, mined: Path, paths: Sequence[str] = REFUSED) -> list[str]:
    """The paths by which a tool of the kind told or changed what lies outside, or did not refuse to."""
    (tool,) = kinds.build_tools([kind.name], 600, []).tools
    before, found = surroundings(mined), []
    for parameter, is_path in text_parameters(kind):
        for path in paths if is_path else paths[::12]:
            result = await run(tool, mined, **{**arguments_for(kind), parameter: filled(path, mined)})
            told = result.text + (result.error or "")
            refused = result.outcome in (*FAILURES, common_pb2.OUTCOME_DENIED)
            refused = refused and (result.outcome == common_pb2.OUTCOME_DENIED) == (result.rule == "workspace")
            refused = refused and bool(result.error) and "secret.txt" not in str(result.error)
            must_refuse = is_path and not (kind.name in READS_FOLDERS and path in FOLDERS)
            if SECRET in told or surroundings(mined) != before or (must_refuse and not refused):
                found.append(f"{parameter}: {path}")
    return found


def test_the_suite_is_as_large_as_it_says():
    assert len(set(REFUSED + INSIDE)) == len(REFUSED + INSIDE) >= 60


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, kind in kinds.kinds().items() if not kind.starts_programs])
async def test_no_tool_lets_a_path_out(mined: Path, name: str):
    """Content outside is neither told nor changed, nothing is made there, and no error quotes the path.

    Every tool that there is, every argument that is text. (What programs may see is test_command_attacks.)
    """
    assert await leaks(kinds.kinds()[name], mined) == []


@pytest.mark.usefixtures("added")
async def test_a_tool_that_opens_paths_by_itself_is_found(mined: Path):
    """So that a new tool without confinement cannot pass the test above."""
    assert await leaks(kinds.kinds()["tally"], mined) == []
    ways = ["../secret.txt", "link-to-secret", "sub/../link-to-outside/secret.txt"]
    assert await leaks(kinds.kinds()["peek"], mined, ways) == [f"path: {way}" for way in ways]


@pytest.mark.parametrize("name", FILE_CALLS)
async def test_what_only_looks_like_a_way_out_stays_inside(mined: Path, name: str):
    make, arguments = FILE_CALLS[name]
    before = surroundings(mined)
    for path in INSIDE:
        result = await run(make(), mined, path=path.replace("{{", "{").replace("}}", "}"), **arguments)
        assert SECRET not in result.text, path
        assert surroundings(mined) == before, path
        if name == "write":
            assert result.error is None, path


def test_a_workspace_whose_path_is_swapped_for_a_link_is_still_the_workspace(mined: Path):
    """It is held by a descriptor from the start: what is done later to its path leads nowhere."""
    away = mined.parent / "away"
    with Files(mined) as files:
        mined.rename(away)
        mined.symlink_to(mined.parent / "workspace2")
        files.replace("new.txt", b"mine")
        assert (away / "new.txt").read_bytes() == b"mine"
        assert [path.name for path in (mined.parent / "workspace2").iterdir()] == ["secret.txt"]
        with files.open("sub/inside.txt") as file:
            assert file.read() == b"inside"


def test_a_workspace_that_is_gone_says_so(workspace: Path):
    with Files(workspace) as files:
        workspace.rmdir()
        with pytest.raises(Exception, match="the workspace was removed; the gateway must be started again"):
            files.replace("a", b"")


def test_a_path_of_very_many_folders_holds_few_descriptors(workspace: Path):
    """Each folder on the way is open until the walk ends."""
    with Files(workspace) as files, pytest.raises(Exception, match="deeper than 200 folders"):
        files.replace("d/" * 1_000 + "f", b"")


@contextlib.contextmanager
def swapping(*states: Callable[[], None]) -> Iterator[None]:
    """Goes through the states again and again in a thread, as a hostile process would."""
    states[0]()
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for state in states:
                with contextlib.suppress(OSError):
                    state()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def race(calls: Callable[[], list[asyncio.Task[ToolResult]]], rounds: int = 60) -> list[ToolResult]:
    """Runs the calls so many times, and on until one ended in another way than the others: then the race was on."""
    results: list[ToolResult] = []
    while rounds > 0 or len({result.error for result in results}) == 1:
        results += await asyncio.gather(*calls())
        rounds -= 1
    return results


def exchange(workspace: Path, name: str, targets: tuple[str, str]) -> tuple[Callable[[], None], ...]:
    """States in which `name` leads to one target and then to the other; a rename puts it there, so it never lacks."""

    def put(target: str) -> Callable[[], None]:
        def act() -> None:
            (workspace / "next").symlink_to(target)
            (workspace / "next").rename(workspace / name)

        return act

    return put(targets[0]), put(targets[1])


@pytest.mark.long
@pytest.mark.parametrize("name", FILE_CALLS)
@pytest.mark.parametrize("swapped", ["file", "folder"])
async def test_a_link_that_changes_under_way_leads_nowhere(mined: Path, name: str, swapped: str):
    """A race between looking and opening: a link that leads inside, then outside, then inside again."""
    make, arguments = FILE_CALLS[name]
    before = surroundings(mined)
    (mined / "real").mkdir()
    (mined / "real" / "secret.txt").write_text("inside")
    targets = ("real/secret.txt", "../secret.txt") if swapped == "file" else ("real", "..")
    path = "swapped" if swapped == "file" else "swapped/secret.txt"
    tool = make()
    with swapping(*exchange(mined, "swapped", targets)):
        results = await race(lambda: [asyncio.create_task(run(tool, mined, path=path, **arguments)) for _ in range(5)])
    assert all(SECRET not in result.text for result in results)
    assert surroundings(mined) == before


@pytest.mark.long
async def test_a_folder_that_becomes_a_link_leads_nowhere(mined: Path):
    """The folder itself is moved away and a link to the outside put in its place."""
    folder, away = mined / "real", mined / "away"
    folder.mkdir()
    (folder / "secret.txt").write_text("inside")

    def out() -> None:
        folder.rename(away)
        folder.symlink_to("..")

    def back() -> None:
        folder.unlink()
        away.rename(folder)

    before = surroundings(mined)
    read, write, grep, glob = ReadTool(), WriteTool(), GrepTool(None, Workers()), GlobTool(Workers())
    with swapping(out, back):
        results = await race(
            lambda: [
                *(asyncio.create_task(run(read, mined, path="real/secret.txt")) for _ in range(5)),
                *(asyncio.create_task(run(write, mined, path="real/new.txt", content="x")) for _ in range(5)),
                asyncio.create_task(run(glob, mined, pattern="**/secret.txt", path="real")),
            ],
            rounds=40,
        )
        for _ in range(5):
            results.append(await run(grep, mined, pattern="canary"))
    assert all(SECRET not in result.text for result in results)
    assert all("workspace2" not in result.text for result in results)
    assert surroundings(mined) == before


@pytest.mark.parametrize("name", FILE_CALLS)
@pytest.mark.parametrize(("swapped", "path"), [("real", "real/secret.txt"), ("secret.txt", "real/secret.txt")])
async def test_what_becomes_a_link_between_the_look_and_the_opening_is_not_followed(
    mined: Path, name: str, swapped: str, path: str, monkeypatch: pytest.MonkeyPatch
):
    """The narrowest race there is, hit each time: the swap comes after the walk has seen that there is no link."""
    make, arguments = FILE_CALLS[name]
    (mined / "real").mkdir()
    (mined / "real" / "secret.txt").write_text("inside")
    before = surroundings(mined)
    look = confine._link_target

    def look_then_swap(part: str, folder: int) -> str | None:
        target = look(part, folder)
        if part == swapped and target is None:
            place = mined / path[: path.index(swapped)] / swapped
            place.rename(mined / "away")
            place.symlink_to(mined.parent if swapped == "real" else mined.parent / "secret.txt")
        return target

    monkeypatch.setattr(confine, "_link_target", look_then_swap)
    result = await run(make(), mined, path=path, **arguments)
    assert SECRET not in result.text
    assert surroundings(mined) == before
    assert result.error


async def test_a_file_that_becomes_a_fifo_does_not_hang(mined: Path):
    path = mined / "file"

    def as_fifo() -> None:
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    def as_file() -> None:
        path.unlink(missing_ok=True)
        path.write_text("inside")

    read, edit = ReadTool(), EditTool()
    with swapping(as_fifo, as_file):
        results = await race(
            lambda: [
                *(asyncio.create_task(run(read, mined, path="file")) for _ in range(3)),
                asyncio.create_task(run(edit, mined, path="file", old_string="inside", new_string="edited")),
            ],
            rounds=40,
        )
    assert len(results) >= 160
