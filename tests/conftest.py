"""What holds for all tests."""

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> None:
    """A job that a shell runs in the background ignores SIGINT, and so would every process that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
