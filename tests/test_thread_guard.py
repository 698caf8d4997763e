"""The guard against tests that leave threads running."""

import subprocess
import sys
from pathlib import Path

import pytest

LEAKING = """
import threading
import pytest

def test_leaks():
    threading.Thread(target=threading.Event().wait, name="forgotten").start()

@pytest.fixture(scope="module")
def service():
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    yield
    event.set()
    thread.join()

def test_uses_a_service(service): ...

def test_uses_it_too(service): ...
"""


@pytest.mark.long
def test_a_leaked_thread_is_a_failure_of_its_test_and_does_not_keep_pytest_from_ending(tmp_path: Path) -> None:
    (tmp_path / "test_leaking.py").write_text(LEAKING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.thread_guard",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "ERROR at teardown of test_leaks" in ended.stdout
    assert "left threads running: forgotten" in ended.stdout
    assert "3 passed, 1 error" in ended.stdout
