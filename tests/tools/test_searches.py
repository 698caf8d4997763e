"""The tools glob and grep: the same answers with ripgrep, with ripgrep in the sandbox, and without it."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.files import Files
from gateway_svc.tools.glob import GlobTool
from gateway_svc.tools.grep import GrepTool
from gateway_svc.tools.jail.libraries import files_of
from gateway_svc.tools.jail.processes import run_program
from gateway_svc.tools.jail.sandbox import Sandbox
from gateway_svc.tools.workers import Workers, search
from gateway_svc.tools.workers.search import Glob
from tests.support.processes import children_of
from tests.tools.running import run


@pytest.fixture
def tree(workspace: Path) -> Path:
    files = {
        "a.py": "def first():\n    return 'needle'\n",
        "src/b.py": "NEEDLE = 1\r\n",
        "src/deep/er/c.txt": "x\n\nneedle: 3\n",
        "src/.hidden/d.py": "needle\n",
        ".git/objects/e.py": "needle\n",
        "node_modules/m/f.py": "needle\n",
        "binary.bin": "needle\0needle\n",
        "src/-rf": "needle in -rf\n",
    }
    for name, content in files.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(content.encode())
    return workspace


@pytest.fixture(params=["bubblewrap", pytest.param("landlock", marks=pytest.mark.long), "ours"])
def grep(request: pytest.FixtureRequest, jails: Mapping[str, Sandbox]) -> GrepTool:
    if request.param == "ours":
        return GrepTool(None, Workers())
    if shutil.which("rg") is None:
        pytest.skip("ripgrep is not installed")
    if request.param not in jails:
        pytest.skip(f"{request.param} does not work on this machine")
    return GrepTool(jails[request.param], Workers())


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            {"pattern": "needle"},
            [
                "a.py:2:    return 'needle'",
                "src/-rf:1:needle in -rf",
                "src/.hidden/d.py:1:needle",
                "src/deep/er/c.txt:3:needle: 3",
            ],
        ),
        (
            {"pattern": "^needle", "ignore_case": True, "glob": "*.py"},
            ["src/.hidden/d.py:1:needle", "src/b.py:1:NEEDLE = 1"],
        ),
        ({"pattern": r"n\w+: \d", "path": "src/deep"}, ["src/deep/er/c.txt:3:needle: 3"]),
        ({"pattern": "needle", "path": "src/", "glob": "deep/**"}, ["src/deep/er/c.txt:3:needle: 3"]),
        ({"pattern": "first", "path": "a.py"}, ["a.py:1:def first():"]),
        ({"pattern": "-rf"}, ["src/-rf:1:needle in -rf"]),
        ({"pattern": "--files"}, ["[No line matches.]"]),
        ({"pattern": "x", "path": "src/b.py"}, ["[No line matches.]"]),
    ],
)
async def test_grep_finds_lines(tree: Path, grep: GrepTool, arguments: dict[str, object], lines: list[str]):
    result = await run(grep, tree, **arguments)
    assert [line.rstrip("\r") for line in result.text.split("\n")] == lines
    assert (result.outcome, result.error, result.result_truncated) == (common_pb2.OUTCOME_SUCCEEDED, None, False)


async def test_grep_takes_an_absolute_path(tree: Path, grep: GrepTool):
    result = await run(grep, tree, pattern="needle", path=str(tree / "src" / "deep"))
    assert result.text == f"{tree}/src/deep/er/c.txt:3:needle: 3"


async def test_grep_tells_a_bad_expression_without_quoting_it(tree: Path, grep: GrepTool):
    result = await run(grep, tree, pattern="(secret")
    assert result.error == "the pattern, or the glob, is not one that can be used"
    assert "secret" not in result.text


async def test_grep_stops_when_there_is_enough(tree: Path, grep: GrepTool):
    for number in range(60):
        (tree / f"many-{number}.txt").write_text("a matching line\n" * 500)
    result = await run(grep, tree, pattern="matching")
    assert result.result_truncated
    assert result.text.endswith("\n[There are more matches: use a narrower pattern, path or glob.]")
    assert len(result.text) < 120_000
    assert all(line.endswith(":a matching line") for line in result.text.split("\n")[:-1])


@pytest.mark.parametrize("path", [None, "full.txt"])
async def test_grep_shows_so_many_matches_of_a_file_and_tells_when_there_are_more(
    tree: Path, grep: GrepTool, path: str | None
):
    most = search.MAX_MATCHES_PER_FILE
    for matches in (most, most + 1, 5 * most):
        (tree / "full.txt").write_text("match\n" * matches)
        (tree / "other.txt").write_text("match\n")
        result = await run(grep, tree, pattern="match", path=path)
        lines = [f"full.txt:{number}:match" for number in range(1, most + 1)]
        lines += ["other.txt:1:match"] if path is None else []
        lines += ["[There are more matches: use a narrower pattern, path or glob.]"] if matches > most else []
        assert result.text.split("\n") == lines
        assert result.result_truncated == (matches > most)


async def test_grep_shortens_long_lines(tree: Path, grep: GrepTool):
    (tree / "long").write_text("x" * 100_000 + "\n")
    result = await run(grep, tree, pattern="x", path="long")
    assert len(result.text) < 500


async def test_an_expression_that_never_ends_is_ended(tree: Path):
    """Python's `re` takes exponential time for it; ripgrep's does not."""
    (tree / "trap").write_text("a" * 60 + "!\n")
    ours = await run(GrepTool(None, Workers(), timeout_seconds=0.5), tree, pattern="(a|aa)+$")
    assert (ours.outcome, ours.error) == (
        common_pb2.OUTCOME_TIMED_OUT,
        "the search took longer than 0.5 s and was ended",
    )


async def test_an_expression_that_wants_all_memory_is_ended(tree: Path):
    result = await run(GrepTool(None, Workers(), timeout_seconds=10), tree, pattern="((a{1,5000}){1,5000}){1,5000}")
    assert result.outcome in (common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_TIMED_OUT, common_pb2.OUTCOME_SUCCEEDED)
    assert "Traceback" not in result.text


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ({"pattern": "*.py"}, ["a.py", "src/.hidden/d.py", "src/b.py"]),
        ({"pattern": "./a.py"}, ["a.py"]),
        ({"pattern": "src/*.py"}, ["src/b.py"]),
        ({"pattern": "src/**/*.txt"}, ["src/deep/er/c.txt"]),
        ({"pattern": "**/b.py"}, ["src/b.py"]),
        ({"pattern": "**/er/**"}, ["src/deep/er/c.txt"]),
        ({"pattern": "[ab].p?"}, ["a.py", "src/b.py"]),
        ({"pattern": "*", "path": "src/deep/er"}, ["src/deep/er/c.txt"]),
        ({"pattern": "*.rs"}, ["[No file matches.]"]),
    ],
)
async def test_glob_lists_files(tree: Path, arguments: dict[str, object], files: list[str]):
    result = await run(GlobTool(Workers()), tree, **arguments)
    assert result.text.split("\n") == files
    assert (result.outcome, result.error) == (common_pb2.OUTCOME_SUCCEEDED, None)


async def test_glob_tells_when_it_lists_only_some(tree: Path):
    few = await run(GlobTool(Workers(), max_files=2), tree, pattern="**")
    assert few.text.split("\n")[2] == "[Only the first 2 files are listed: use a narrower pattern or path.]"
    short = await run(GlobTool(Workers(), max_visited=3), tree, pattern="**")
    assert "[The search ended after 3 files and folders" in short.text
    assert few.result_truncated
    assert short.result_truncated


def test_a_glob_of_many_stars_takes_no_longer():
    """Patterns that keep other matchers busy for ages."""
    assert not Glob("*a" * 200 + "b").matches("a" * 255)
    assert not Glob("**/" * 300 + "b").matches("a/" * 60 + "a")
    assert Glob("**/" * 300 + "*").matches("a/" * 60 + "a")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**", "a/b/c", True),
        ("a/**", "a", True),
        ("a/**", "ab", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/x/y/bb", False),
        ("*/b", "a/c/b", False),
        ("/a.py", "b/a.py", False),
        ("/a.py", "a.py", True),
        ("a*", "x/abc", True),
        ("[!a].py", "b.py", True),
        ("[!a].py", "a.py", False),
    ],
)
def test_globs_mean_what_shells_mean(pattern: str, path: str, matches: bool):
    assert Glob(pattern).matches(path) is matches


@pytest.fixture
def deep_tree() -> Iterator[Path]:
    """1,500 folders, one in the other; in memory, since a disk may take seconds for that.

    Taken apart by hand afterwards, since Python's own way to remove a tree is recursive.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        here = os.open(root, os.O_RDONLY)
        for _ in range(1_500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        yield Path(root)
        top, rest = Path(root, "d"), Path(root, "rest")
        while (top / "d").exists():
            (top / "d").rename(rest)
            top.rmdir()
            rest.rename(top)


async def test_a_tree_that_is_too_deep_is_walked_as_far_as_it_goes(deep_tree: Path):
    """Thousands of nested folders must not end the process that walks them."""
    (deep_tree / "z.txt").write_text("needle\n")
    assert (await run(GlobTool(Workers()), deep_tree, pattern="**/*.txt")).text == "z.txt"
    assert (await run(GrepTool(None, Workers()), deep_tree, pattern="needle")).text == "z.txt:1:needle"


def test_a_folder_of_very_many_files_is_looked_at_in_part(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search, "MAX_FOLDER_ENTRIES", 3)
    for number in range(10):
        (workspace / str(number)).touch()
    folder = os.open(workspace, os.O_RDONLY)
    assert len(list(search.walk(folder))) == 3
    os.close(folder)


@pytest.fixture
def opened(workspace: Path) -> Iterator[int]:
    folder = os.open(workspace, os.O_RDONLY)
    yield folder
    os.close(folder)


def test_a_walk_neither_lists_links_nor_follows_them(workspace: Path, opened: int):
    (workspace.parent / "outside").mkdir()
    (workspace.parent / "outside" / "secret.txt").write_text("needle\n")
    (workspace / "file").symlink_to("../outside/secret.txt")
    (workspace / "folder").symlink_to("../outside")
    (workspace / "a.txt").touch()
    assert [path for path, *_ in search.walk(opened)] == ["a.txt"]
    assert list(search.search(re.compile("needle"), None, opened)) == []


def test_a_folder_that_a_link_replaces_during_a_walk_is_not_entered(workspace: Path, opened: int):
    (workspace.parent / "outside").mkdir()
    (workspace.parent / "outside" / "secret.txt").touch()
    (workspace / "folder").mkdir()
    walked = []
    for path, *_ in search.walk(opened):
        walked.append(path)
        (workspace / "folder").rename(workspace / "moved")
        (workspace / "folder").symlink_to("../outside")
    assert walked == ["folder"]


def test_a_file_that_a_link_replaces_during_a_search_is_not_read(workspace: Path, opened: int):
    (workspace.parent / "secret.txt").write_text("needle of another\n")
    for name in ("a", "b"):
        (workspace / name).write_text("needle\n")
    lines = search.search(re.compile("needle"), None, opened)
    assert next(lines) == "./a:1:needle"
    (workspace / "b").unlink()
    (workspace / "b").symlink_to("../secret.txt")
    assert list(lines) == []


async def test_a_search_reads_no_special_file_and_waits_for_none(workspace: Path):
    os.mkfifo(workspace / "silent")
    os.mkfifo(workspace / "speaking")
    speaking = os.open(workspace / "speaking", os.O_RDWR)
    os.write(speaking, b"needle\n")
    assert (await run(GrepTool(None, Workers()), workspace, pattern="needle")).text == "[No line matches.]"
    assert os.read(speaking, 100) == b"needle\n"
    os.close(speaking)


async def test_of_a_huge_file_a_search_reads_no_more_than_it_may(workspace: Path):
    """Its worker has 1 GiB. What is too large to be read whole has no lines."""
    with (workspace / "huge").open("wb") as file:
        file.write(b"needle\n")
        file.truncate(4 * 2**30)
    with (workspace / "large").open("wb") as file:
        file.write(b"needle\n" * (search.MAX_FILE_BYTES // 7 + 1))
    (workspace / "small").write_text("needle\n")
    assert (await run(GrepTool(None, Workers()), workspace, pattern="needle")).text == "small:1:needle"


async def test_a_file_name_that_is_no_text_does_not_end_the_call(workspace: Path, grep: GrepTool):
    (workspace / os.fsdecode(b"\xff\xfe.txt")).write_text("needle\n")
    assert (await run(GlobTool(Workers()), workspace, pattern="*.txt")).text == "\ufffd\ufffd.txt"
    assert (await run(grep, workspace, pattern="needle")).text.endswith(".txt:1:needle")


def command_lines_of_children() -> bytes:
    return b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(os.getpid()))


async def test_what_a_worker_looks_for_is_on_no_command_line(workspace: Path):
    """Every user of the machine can read those."""
    read_end, write_end = os.pipe()
    wanted = {"do": "grep", "stdin": True, "pattern": "canary-5512", "glob": None, "ignore_case": None}
    working = asyncio.create_task(
        Workers().run("search", wanted, stdin=read_end, timeout_seconds=60, max_output_bytes=1_000)
    )
    async with asyncio.timeout(30):
        while b"main.py" not in (lines := command_lines_of_children()):
            await asyncio.sleep(0.01)
    os.write(write_end, b"x\ncanary-5512\n")
    os.close(write_end)
    assert (await working).output.text() == "2:canary-5512\n"
    os.close(read_end)
    assert b"canary" not in lines


async def test_ripgrep_sees_nothing_of_the_system_but_what_it_needs_to_start(tree: Path, jails: Mapping[str, Sandbox]):
    """Whatever a link leads to, in the moment between looking and opening."""
    ripgrep = shutil.which("rg")
    if ripgrep is None or not jails:
        pytest.skip("there is no ripgrep, or no jail")
    shown = files_of(ripgrep)
    folders = ["/bin", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/usr", "/var"]
    for jail in jails.values():
        with Files(tree) as files:
            argv = [ripgrep, "--files", "--no-messages", "--no-ignore", "--hidden", ".", *folders]
            program = jail.program(argv, files, {}, writable=False, only=shown)
            ended = await run_program(program, timeout_seconds=60, max_output_bytes=1_000_000)
        found = set(ended.output.text().splitlines())
        assert "./a.py" in found
        assert {path for path in found if path.startswith("/")} <= set(shown), jail.name


async def test_a_jail_that_fails_is_not_told_as_a_wrong_pattern(tree: Path, jails: Mapping[str, Sandbox]):
    """Neither is a program that cannot be started in it."""
    for jail in jails.values():
        tool = GrepTool(jail, Workers())
        if tool._ripgrep:
            tool._shown = (tool._ripgrep,)  # without its libraries
            result = await run(tool, tree, pattern="needle")
            assert result.error == "the search could not be made: its jail failed"


async def test_without_ripgrep_in_its_jail_a_worker_searches(tree: Path, jails: Mapping[str, Sandbox], monkeypatch):
    monkeypatch.setattr("gateway_svc.tools.grep.files_of", lambda program: (program,))
    for jail in jails.values():
        tool = GrepTool(jail, Workers())
        assert tool._ripgrep is None
        assert (await run(tool, tree, pattern="needle", path="src/deep")).text == "src/deep/er/c.txt:3:needle: 3"
