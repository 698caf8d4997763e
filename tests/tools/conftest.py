"""What the tools are tested with: a workspace, and the sandbox where this machine has one."""

from pathlib import Path

import pytest
import structlog

from gateway_svc.tools.jail.sandbox import Sandbox, find_sandbox


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace with a parent of its own, so that "outside" can be looked at."""
    folder = tmp_path / "outside" / "workspace"
    folder.mkdir(parents=True)
    return folder.resolve()


@pytest.fixture(scope="session")
def machine_sandbox() -> Sandbox | None:
    """The sandbox that this machine allows, if any."""
    with structlog.testing.capture_logs():
        return find_sandbox("auto")


@pytest.fixture(params=["bubblewrap", "bare"])
def sandbox(request: pytest.FixtureRequest, machine_sandbox: Sandbox | None) -> Sandbox | None:
    """Each test with the sandbox and without it."""
    if request.param == "bare":
        return None
    if machine_sandbox is None:
        pytest.skip("bubblewrap does not work on this machine")
    return machine_sandbox
