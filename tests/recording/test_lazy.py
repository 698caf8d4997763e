"""What is computed when it is first asked for is there in a fork of a process that was computing it."""

import os
import signal
import threading
from pathlib import Path

import pytest

import recording
from recording.lazy import lazy

PARENT_PID = os.getpid()


class Slow:
    """Takes in its own process until it is released."""

    def __init__(self) -> None:
        self.begun, self.released, self.times = threading.Event(), threading.Event(), 0

    @lazy
    def value(self) -> str:
        """A value."""
        self.times += 1
        self.begun.set()
        if os.getpid() == PARENT_PID:
            self.released.wait(60)
        return "computed"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_a_thread_computes_it_has_it_too() -> None:
    slow = Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    slow.begun.wait(60)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        os._exit(slow.value != "computed")
    status = os.waitpid(child, 0)[1]
    slow.released.set()
    thread.join()
    assert status == 0


def test_it_is_computed_once() -> None:
    slow = Slow()
    slow.released.set()
    assert (slow.value, slow.value, slow.times) == ("computed", "computed", 1)
    assert Slow.value.__doc__ == "A value."


def test_nothing_that_an_application_forks_with_has_the_lock() -> None:
    files = Path(recording.__path__[0]).rglob("*.py")
    assert [file.name for file in files if "import cached_property" in file.read_text()] == []
