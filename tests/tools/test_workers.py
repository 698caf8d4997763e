"""A worker runs the gateway's code and the standard library's alone, and ends with its time."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from gateway_svc.tools.workers import Workers, pool

PYTHON = Path(sys.executable).resolve()
HIDDEN = ("json", "re", "fnmatch", "codecs", "zlib", "ctypes", "resource", "sitecustomize", "usercustomize")


def plant(folder: Path, ran: Path, names: tuple[str, ...] = HIDDEN) -> None:
    """Modules that say in `ran` that they were run, and from where."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        mark = str(ran / f"{folder.name}-{name}")
        (folder / f"{name}.py").write_text(f"import os\nos.close(os.open({mark!r}, os.O_CREAT | os.O_WRONLY))\n")


async def search(folder: Path) -> str:
    """Runs a search in folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    wanted = {"do": "glob", "pattern": "*.txt", "max_visited": 1000, "max_files": 10}
    try:
        result = await Workers().run("search", wanted, folder=descriptor, timeout_seconds=60, max_output_bytes=10_000)
    finally:
        os.close(descriptor)
    assert result.exit_code == 0, result.output.text()
    return result.output.text()


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    folder = tmp_path / "ran"
    folder.mkdir()
    return folder


async def test_modules_in_the_workspace_run_in_no_worker(tmp_path, ran):
    plant(tmp_path / "workspace", ran, (*HIDDEN, "search", "page"))
    (tmp_path / "workspace" / "a.txt").touch()
    assert "a.txt" in await search(tmp_path / "workspace")
    assert list(ran.iterdir()) == []


async def test_what_python_s_variables_name_runs_in_no_worker(tmp_path, ran, monkeypatch):
    """Not even where a worker would get the gateway's own environment."""
    plant(tmp_path / "path", ran)
    user = tmp_path / "home"
    plant(user / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages", ran)
    (tmp_path / "workspace").mkdir()
    variables = {"PYTHONPATH": str(tmp_path / "path"), "PYTHONUSERBASE": str(user), "HOME": str(user)}
    monkeypatch.setattr(pool, "ENVIRONMENT", {**pool.ENVIRONMENT, **variables})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await search(tmp_path / "workspace")
    assert list(ran.iterdir()) == []


async def test_what_an_installation_starts_with_runs_in_no_worker(tmp_path, ran, monkeypatch):
    """Packages may start code with each Python: by sitecustomize, and by lines of .pth files."""
    packages = tmp_path / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    plant(packages, ran)
    (packages / "start.pth").write_text(f"import os; os.close(os.open({str(ran / 'pth')!r}, os.O_CREAT))\n")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(PYTHON)
    (tmp_path / "venv" / "pyvenv.cfg").write_text(f"home = {PYTHON.parent}\n")
    monkeypatch.setattr(sys, "executable", str(python))
    (tmp_path / "workspace").mkdir()
    await search(tmp_path / "workspace")
    assert list(ran.iterdir()) == []


async def test_a_module_beside_the_program_takes_the_place_of_none_of_the_standard_library(tmp_path, ran, monkeypatch):
    beside = tmp_path / "workers"
    shutil.copytree(Path(pool.MAIN).parent, beside, ignore=shutil.ignore_patterns("__pycache__"))
    plant(beside, ran)
    monkeypatch.setattr(pool, "MAIN", str(beside / "main.py"))
    (tmp_path / "workspace").mkdir()
    await search(tmp_path / "workspace")
    assert list(ran.iterdir()) == []


async def test_a_worker_ends_with_its_time_though_its_caller_waits(tmp_path):
    """One that waits for its input for ever, as one that stands still does."""
    reading, writing = os.pipe()
    try:
        async with asyncio.timeout(30):
            result = await Workers().run("page", {}, stdin=reading, timeout_seconds=0.5, max_output_bytes=10_000)
    finally:
        os.close(reading)
        os.close(writing)
    assert (result.timed_out, result.exit_code) == (True, None)


async def test_waiting_for_a_place_counts_towards_a_worker_s_time(tmp_path):
    workers = Workers(at_once=2)
    reading, writing = os.pipe()
    try:
        first = asyncio.create_task(
            workers.run("page", {}, stdin=reading, timeout_seconds=600, max_output_bytes=10_000)
        )
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            second = await workers.run("page", {}, stdin=reading, timeout_seconds=0.1, max_output_bytes=10_000)
        assert second.timed_out
        assert not first.done()
        first.cancel()
        await asyncio.wait([first])
    finally:
        os.close(reading)
        os.close(writing)
