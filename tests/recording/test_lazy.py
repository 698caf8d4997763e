"""What is computed when it is first asked for is there in a fork of a process that was computing it."""

import subprocess
import sys
import threading
from pathlib import Path

import recording
from recording.lazy import lazy

_FORKS = """
import os, signal, threading
from tests.recording.test_lazy import Slow

slow = Slow()
thread = threading.Thread(target=lambda: slow.value)
thread.start()
slow.begun.wait(60)
child = os.fork()
if not child:
    signal.alarm(20)
    slow.released.set()
    os._exit(slow.value != "computed")
status = os.waitpid(child, 0)[1]
slow.released.set()
thread.join()
os._exit(status != 0)
"""


class Slow:
    """Takes until it is released."""

    def __init__(self) -> None:
        self.begun, self.released, self.times = threading.Event(), threading.Event(), 0

    @lazy
    def value(self) -> str:
        """A value."""
        self.times += 1
        self.begun.set()
        self.released.wait(60)
        return "computed"


def test_a_fork_while_a_thread_computes_it_has_it_too() -> None:
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", _FORKS], cwd=root, timeout=120).returncode == 0


def test_it_is_computed_once() -> None:
    slow = Slow()
    slow.released.set()
    assert (slow.value, slow.value, slow.times) == ("computed", "computed", 1)
    assert Slow.value.__doc__ == "A value."


def test_nothing_that_an_application_forks_with_has_the_lock() -> None:
    files = Path(recording.__path__[0]).rglob("*.py")
    assert [file.name for file in files if "import cached_property" in file.read_text()] == []
