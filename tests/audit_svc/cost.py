"""What a question costs, whatever else the machine does."""

from collections.abc import Callable

import apsw

_EVERY = 10


def machine_steps(connection: apsw.Connection, ask: Callable[[], object]) -> int:
    """How many steps SQLite's machine takes while ask runs on connection, to the ten."""
    count = 0

    def another() -> bool:
        nonlocal count
        count += 1
        return False

    connection.set_progress_handler(another, _EVERY)
    ask()
    connection.set_progress_handler(None)
    return count * _EVERY
