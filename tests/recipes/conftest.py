"""One audit service for all recipes of a process, as a real process on a real port."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.processes import Service, start_service
from tests.recipes.applications import BIN, Application


@pytest.fixture(scope="session")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """The service, and its database."""
    assert BIN.is_dir(), "make test-recipes makes the environment of the applications"
    db = tmp_path_factory.mktemp("audit") / "audit.db"
    with start_service("audit_svc", {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(db)}, "serve") as service:
        yield service, db


@pytest.fixture
def make_application(tmp_path: Path, audit: tuple[Service, Path]) -> Iterator[Callable[[str], Application]]:
    """Makes the application of a recipe, of which no process is left behind."""
    with ExitStack() as stack:
        yield lambda recipe: stack.enter_context(Application(tmp_path, *audit, recipe))
