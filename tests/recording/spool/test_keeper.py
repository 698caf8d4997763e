"""The keeper's thread."""

import threading

import pytest

from recording.spool.keeper import Keeper


class WakeThatStopsFirst(threading.Event):
    """Puts stop() where it hurts: after the thread has seen that it goes on, and before it clears the wake."""

    keeper: Keeper

    def clear(self) -> None:
        threading.Thread(target=self.keeper.stop).start()
        while not self.is_set() or not self.keeper._stopping.is_set():
            pass
        super().clear()


def test_it_can_be_stopped_at_any_moment() -> None:
    """A stop that comes just as the thread begins a tick must not be slept through."""
    keeper = Keeper("keeper", 0.001, lambda: None)
    wake = WakeThatStopsFirst()
    wake.keeper = keeper
    keeper._wake = wake
    keeper.wake()
    thread = keeper._thread
    assert thread is not None
    thread.join(30)
    assert not thread.is_alive()


def test_a_tick_that_fails_is_not_the_last() -> None:
    ticks: list[int] = []
    done = threading.Event()

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 1:
            raise OSError("the disk is gone")
        done.set()

    keeper = Keeper("keeper", 0.001, tick)
    keeper.wake()
    assert done.wait(30)
    keeper.stop()


def test_many_wakes_are_one_tick() -> None:
    ticks: list[int] = []
    begun, go_on, again = threading.Event(), threading.Event(), threading.Event()

    def tick() -> None:
        ticks.append(1)
        (again if begun.is_set() else begun).set()
        assert go_on.wait(30)

    keeper = Keeper("keeper", 0.001, tick)
    keeper.wake()
    assert begun.wait(30)
    for _ in range(1000):
        keeper.wake()
    go_on.set()
    assert again.wait(30)
    keeper.stop()
    assert len(ticks) == 2


def test_a_signal_s_handler_may_fork_while_the_thread_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fork does, rest() and resume(), runs in the middle of wake(), in the same thread."""
    done = threading.Event()
    keeper = Keeper("keeper", 0.001, done.set)

    class Interrupted(threading.Thread):
        def start(self) -> None:
            keeper.rest()
            keeper.resume()
            super().start()
            keeper.rest()
            keeper.resume()

    monkeypatch.setattr("recording.spool.keeper.threading.Thread", Interrupted)
    keeper.wake()
    assert done.wait(30)
    keeper.rest()
    assert keeper._thread is None
    keeper.stop()


def test_where_no_thread_can_be_started_the_next_call_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    done = threading.Event()
    keeper = Keeper("keeper", 0.001, done.set)
    with monkeypatch.context() as patched:
        patched.setattr("recording.spool.keeper.threading.Thread", Refused)
        keeper.wake()
    keeper.wake()
    assert done.wait(30)
    keeper.stop()


def test_a_fork_while_another_thread_starts_the_keeper_s_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done, starting, go_on = threading.Event(), threading.Event(), threading.Event()
    keeper = Keeper("keeper", 0.001, done.set)
    start = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        if thread.name == "keeper":
            starting.set()
            assert go_on.wait(60)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    waker, forker = threading.Thread(target=keeper.wake), threading.Thread(target=keeper.rest)
    waker.start()
    assert starting.wait(60)
    forker.start()
    go_on.set()
    for thread in (waker, forker):
        thread.join()
    keeper.resume()
    keeper.wake()
    assert done.wait(60), "it goes on after the fork"
    keeper.stop()


def test_a_signal_s_handler_that_raises_in_wake_leaves_its_thread_able_to_stop_the_keeper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = Keeper("keeper", 0.001, lambda: None)
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            keeper.wake()
    thread = keeper._thread
    keeper.stop()
    assert thread is not None
    assert not thread.is_alive()


@pytest.mark.parametrize("begun", [False, True])
def test_a_signal_s_handler_that_raises_in_wake_costs_no_tick(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    done = threading.Event()
    keeper = Keeper("keeper", 0.001, done.set)
    start = threading.Thread.start
    raised: list[int] = []

    def interrupted(thread: threading.Thread) -> None:
        if begun or raised:
            start(thread)
        if not raised:
            raised.append(1)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keeper.wake()
    assert done.wait(30)
    keeper.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "keeper"]


def test_its_thread_begins_without_the_lock() -> None:
    """A child of a fork of which Python is not told finds each lock as it was, and can close what it has."""
    done = threading.Event()
    keeper = Keeper("keeper", 0.001, done.set)
    with keeper._lock:
        keeper.wake()
        assert done.wait(30)
    keeper.stop()
