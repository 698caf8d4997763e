"""A model that means harm costs its own calls; the calls of others go on."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway_svc.tools.kinds import kinds
from tests.hostile.conftest import Start
from tests.hostile.house import Case, open_house
from tests.support.processes import children_of

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

DEPTH = 60
DEEPER = "x/../" * 800
"""A path of many steps that leads nowhere."""
UNCONFINED = {"GATEWAY_BASH_SANDBOX": "off_as_root"}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def globs() -> tuple[dict[str, Any], ...]:
    patterns = ["**/" * 340 + "x", "**/a/" * 200 + "x", "*a/**/" * 170 + "x", "**/*/" * 200 + "x"]
    return tuple(call("glob", pattern=pattern) for pattern in patterns * 2)


CASES = [
    Case("globs", globs(), "SUCCEEDED|TIMED_OUT"),
    Case("a link 25,000 deep", (call("read", path="deep"),), "FAILED", "deeper than"),
    Case("links of many steps", tuple(call("glob", pattern="*", path="steps") for _ in range(8)), "FAILED", "names"),
    Case("a path of many steps", (call("read", path=f"{DEEPER}notes.txt"),), "FAILED", "names"),
    Case(
        "an edit that grows",
        (call("edit", path="as.txt", old_string="a", new_string="b" * 100_000, replace_all=True),),
        "FAILED",
        "larger than",
    ),
    Case(
        "a pattern that never ends",
        (call("grep", pattern="(a|aa)+$", path="long.txt"),) * 2,
        "SUCCEEDED|TIMED_OUT|FAILED",
    ),
    Case(
        "a file of a megabyte",
        (call("write", path="made.txt", content="x" * 1_000_000),),
        "SUCCEEDED",
    ),
    Case("a file behind links of many steps", (call("write", path="steps/x.txt", content="x"),), "FAILED", "names"),
    Case("a line of megabytes", (call("read", path="as.txt"),), "SUCCEEDED"),
]
FILES = "import os\nfor i in range(400_000):\n os.close(os.open(f'/tmp/{i}', os.O_CREAT | os.O_WRONLY))"
IN_A_JAIL = [
    Case("output without end", (call("bash", command="yes", timeout_seconds=3),), "TIMED_OUT"),
    Case(
        "processes without end",
        (call("bash", command="f() { f | f & }; f; sleep 600", timeout_seconds=3),),
        "TIMED_OUT|FAILED",
    ),
    Case(
        "children that stay",
        (call("bash", command="for i in 1 2 3 4 5 6 7 8; do setsid sleep 600 & done"),),
        "SUCCEEDED|TIMED_OUT",
    ),
    Case(
        "files in /tmp",
        (call("bash", command=f'python3 -c "{FILES}"', timeout_seconds=30),),
        "FAILED",
        "temporary files",
    ),
    Case(
        "files in /dev/shm",
        (call("bash", command=f'python3 -c "{FILES.replace("/tmp", "/dev/shm")}"'),),
        "FAILED",
        "temporary files",
    ),
]


def furnish(workspace: Path) -> None:
    """Deep folders, links, long lines."""
    folder = os.open(workspace, os.O_RDONLY)
    for _ in range(DEPTH):
        for name in "abcdefgh":
            os.mkdir(name, dir_fd=folder)
            os.close(os.open(f"{name}/x", os.O_CREAT, dir_fd=folder))
        inner = os.open("a", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    (workspace / "x").mkdir()
    (workspace / "long.txt").write_text("a" * 100_000 + "!\n")
    (workspace / "as.txt").write_text("a" * 1_500_000)
    # each link leads through the one before it, 1,000 folders further
    (workspace / "self").mkdir()
    (workspace / "self/self").symlink_to("../self")
    for number in range(25):
        before = "self" if number == 0 else f"link{number - 1}"
        (workspace / f"link{number}").symlink_to(f"{before}/" + "deeper/" * 500)
    tip = workspace
    for _ in range(210):
        tip = tip / "deeper"
    tip.mkdir(parents=True)
    (workspace / "deep").symlink_to("deeper/" * 210)
    (workspace / "steps").symlink_to("x/../" * 800 + "steps1")
    for number in range(1, 39):
        (workspace / f"steps{number}").symlink_to("x/../" * 800 + f"steps{number + 1}")
    (workspace / "steps39").mkdir()


@pytest.mark.parametrize("jail", ["a jail", pytest.param("no jail", marks=pytest.mark.long)])
async def test_each_call_costs_itself_and_nobody_else_feels_it(start: Start, tmp_path: Path, jail: str):
    env = {} if jail == "a jail" else UNCONFINED
    async with open_house(start, tmp_path, **env) as house:
        furnish(tmp_path / "workspace")
        assert await house.stand_all(CASES + (IN_A_JAIL if jail == "a jail" else [])) == []


def test_every_tool_has_cases():
    """webfetch has test_pages.py."""
    named = {one["name"] for case in CASES + IN_A_JAIL for one in case.calls}
    assert named | {"webfetch"} == kinds().keys()


async def test_what_searches_ends_with_a_gateway_that_is_killed(start: Start, tmp_path: Path):
    """A worker that is busy in an expression that never ends."""
    async with open_house(start, tmp_path, **UNCONFINED) as house:
        (tmp_path / "workspace/long.txt").write_text("a" * 100 + "!\n")
        search = asyncio.create_task(house.turn([call("grep", pattern="(a|aa)+$")]))
        async with asyncio.timeout(30):
            while not (workers := workers_of(house.gateway.pid)):
                await asyncio.sleep(0.01)
            house.gateway.kill()
            while any(map(is_worker, workers)):
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.RpcError):
            await search


def workers_of(gateway: int) -> list[int]:
    """The workers that a gateway has started."""
    return list(filter(is_worker, children_of(gateway)))


def is_worker(process: int) -> bool:
    """Whether it is one, and runs."""
    with suppress(OSError):
        return b"workers/main.py" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False
