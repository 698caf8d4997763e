"""No path, link or race leads out of the workspace."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2

from gateway_svc.tools import Tool
from gateway_svc.tools.edit import EditTool
from gateway_svc.tools.glob import GlobTool
from gateway_svc.tools.grep import GrepTool
from gateway_svc.tools.jail import confine
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.write import WriteTool
from recording.calls import ToolResult
from tests.tools.attack_paths import INSIDE, REFUSED
from tests.tools.minefield import SECRET, lay, surroundings
from tests.tools.running import run

FILE_CALLS: dict[str, tuple[Callable[[], Tool], dict[str, object]]] = {
    "read": (ReadTool, {}),
    "write": (WriteTool, {"content": "written"}),
    "edit": (EditTool, {"old_string": SECRET[:6], "new_string": "edited", "replace_all": True}),
}
FOLDERS = {"sub", ".", "{workspace}"}


@pytest.fixture
def mined(workspace: Path) -> Path:
    lay(workspace)
    return workspace


def filled(path: str, workspace: Path) -> str:
    return path.replace("{outside}", str(workspace.parent)).replace("{workspace}", str(workspace))


def test_the_suite_is_as_large_as_it_says():
    assert len(set(REFUSED + INSIDE)) == len(REFUSED + INSIDE) >= 60


@pytest.mark.parametrize("name", FILE_CALLS)
async def test_every_way_out_is_refused(mined: Path, name: str):
    """Content outside is neither told nor changed, nothing is made there, and no error quotes the path."""
    make, arguments = FILE_CALLS[name]
    before = surroundings(mined)
    for path in REFUSED:
        result = await run(make(), mined, path=filled(path, mined), **arguments)
        assert result.outcome in (audit_pb2.OUTCOME_FAILED, audit_pb2.OUTCOME_INVALID_CALL), path
        assert result.error, path
        assert SECRET not in result.text + result.error, path
        assert "secret.txt" not in result.error, path
        assert surroundings(mined) == before, path


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


@pytest.mark.parametrize("ripgrep", [True, False])
async def test_searches_do_not_leave_either(mined: Path, ripgrep: bool):
    for path in [".", *(path for path in REFUSED if path not in FOLDERS)]:
        grep = await run(GrepTool(None, ripgrep=ripgrep), mined, pattern="canary|root", path=filled(path, mined))
        glob = await run(GlobTool(), mined, pattern="**", path=filled(path, mined))
        for result in (grep, glob):
            assert SECRET not in result.text, path
            assert "secret.txt" not in result.text, path
            assert (result.outcome != audit_pb2.OUTCOME_SUCCEEDED) == (path != "."), path


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
    read, write, grep, glob = ReadTool(), WriteTool(), GrepTool(None, ripgrep=False), GlobTool()
    with swapping(out, back):
        results = await race(
            lambda: [
                *(asyncio.create_task(run(read, mined, path="real/secret.txt")) for _ in range(5)),
                *(asyncio.create_task(run(write, mined, path="real/new.txt", content="x")) for _ in range(5)),
                *(asyncio.create_task(run(glob, mined, pattern="**/secret.txt", path="real")) for _ in range(5)),
            ]
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
