"""Files that are reloaded when they change."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from recording.channel import watched as module
from recording.channel.watched import Watched, WrongFile


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, but for who sleeps."""

    class Clock:
        now = 100.0

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def lines_of(contents: Sequence[bytes]) -> list[bytes]:
    if b"wrong" in contents[0]:
        raise WrongFile(Path("list"), "is wrong")
    return contents[0].splitlines()


def test_a_list_that_may_be_half_written_is_read_again_before_it_is_taken(tmp_path, clock):
    path = tmp_path / "list"
    path.write_bytes(b"one")
    watched = Watched([path], lines_of, lines=True)
    assert (watched.current(), clock.now) == ([b"one"], 100.0 + module.SETTLE_SECONDS)
    for half in (b"one\ntw", b"one\ntwo\nth"):
        path.write_bytes(half)
        assert watched.current() == [b"one"]
        clock.now += module.SETTLE_SECONDS / 2
        assert watched.current() == [b"one"], "its time begins anew with each change"
    path.write_bytes(b"one\ntwo\nthree\n")
    assert watched.current() == [b"one", b"two", b"three"], "a whole one is taken at once"
    path.write_bytes(b"one\nfour")
    assert watched.current() == [b"one", b"two", b"three"]
    clock.now += module.SETTLE_SECONDS
    assert watched.current() == [b"one", b"four"]
    path.write_bytes(b"wrong\n")
    assert watched.current() == [b"one", b"four"]
    path.write_bytes(b"")
    assert watched.current() == [], "an empty list lets nobody in"


def test_other_files_need_no_line_break(tmp_path, clock):
    path = tmp_path / "token"
    path.write_bytes(b"one")
    watched = Watched([path], lines_of)
    path.write_bytes(b"two!")
    assert (watched.current(), clock.now) == ([b"two!"], 100.0)
