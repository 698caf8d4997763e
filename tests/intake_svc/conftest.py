"""The door and the ledger as processes on real ports."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.processes import Service, start_service
from tests.support.ports import own_port

SECONDS_TO_ARRIVE = 60.0


class House:
    """The services. What a test does not start is not there."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.db = folder / "audit" / "audit.db"
        self.state = folder / "intake"
        self.audit_address = f"127.0.0.1:{stack.enter_context(own_port())}"
        self._stack = stack

    def start_audit(self, **env: str) -> Service:
        """The ledger, always on the same port."""
        settings = {"AUDIT_LISTEN": self.audit_address, "AUDIT_DB": str(self.db), **env}
        return self._stack.enter_context(start_service("audit_svc", settings, "serve"))

    def start_door(self, **env: str) -> "DoorProcess":
        """The door, on ports that nobody else has."""
        settings = {
            "INTAKE_LISTEN": "127.0.0.1:0",
            "INTAKE_HTTP_LISTEN": "127.0.0.1:0",
            "INTAKE_STATE_DIR": str(self.state),
            "INTAKE_AUDIT_TARGET": self.audit_address,
            **env,
        }
        return DoorProcess(self._stack.enter_context(start_service("intake_svc", settings, "serve")))

    def rows(self, table: str = "tool_call_log") -> list[dict[str, Any]]:
        """What the ledger has; nothing as long as it has no such table."""
        if not self.db.exists():
            return []
        connection = sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
        finally:
            connection.close()

    def wait_for_rows(self, count: int) -> list[dict[str, Any]]:
        """The tool calls in the ledger, once there are so many."""
        found: list[dict[str, Any]] = wait_for(lambda: rows if len(rows := self.rows()) >= count else None)
        return found


class DoorProcess:
    """A running door."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.grpc = service.address
        self.http = service.http_address


def wait_for(look: Callable[[], Any]) -> Any:
    """What look returns once that is something."""
    deadline = time.monotonic() + SECONDS_TO_ARRIVE
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


@contextmanager
def open_house(folder: Path) -> Iterator[House]:
    """A house whose services end with the body."""
    with ExitStack() as stack:
        yield House(folder, stack)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """One of a test's own."""
    with open_house(tmp_path) as house:
        yield house


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, DoorProcess]]:
    """One for tests that change nothing but the ledger: both services run."""
    with open_house(tmp_path_factory.mktemp("house")) as house:
        house.start_audit()
        yield house, house.start_door()
