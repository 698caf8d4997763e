"""Names of runs: what their programs are found by, and whose are ended by whom."""

import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway_svc.marks import Run, new_mark
from recording.locks import lock_file
from tests.engines_claude.stage import run_name


@contextmanager
def program(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], env={"ONRECORD_CALL": mark}) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def names(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def test_a_run_ends_what_those_without_a_lock_had_begun_and_nothing_else(names: Path) -> None:
    killed, alive, strange = secrets.token_hex(16), secrets.token_hex(16), "home"
    for name in (killed, strange):
        (names / name).touch()
    lock = lock_file(names / alive)
    assert lock is not None
    with (
        program(f"{killed}-1") as left,
        program(f"{alive}-1") as running,
        program(f"{strange}-1") as stranger,
        program(new_mark()) as own,
    ):
        run = Run(names.parent)
        assert left.wait(60) == -9
        assert [process.poll() for process in (running, stranger, own)] == [None] * 3
        own_name = run_name()
        assert {name.name for name in names.iterdir()} == {alive, strange, own_name}
        run.close()
    assert {name.name for name in names.iterdir()} == {alive, strange}
    os.close(lock)


def test_a_run_that_another_took_for_a_killed_one_has_its_name_in_the_end(names: Path) -> None:
    """Between its file and its lock, another that starts may take the file away."""
    name = names / run_name()
    taken = lock_file(name)
    assert taken is not None

    def take_away() -> None:
        name.unlink()
        os.close(taken)

    other = threading.Timer(0.1, take_away)
    other.start()
    run = Run(names.parent)
    other.join()
    assert name.exists()
    assert lock_file(name) is None, "the run has its lock"
    run.close()
    assert not name.exists()
