"""What the tools are tested with: a workspace, and the sandboxes that this machine has."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog

from gateway_svc.errors import SettingsError
from gateway_svc.tools.jail.sandbox import Sandbox, SandboxMode, find_sandbox

JAILS: tuple[SandboxMode, ...] = ("bubblewrap", "landlock")
EACH_JAIL = ["bubblewrap", pytest.param("landlock", marks=pytest.mark.long)]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace with a parent of its own, so that "outside" can be looked at."""
    folder = tmp_path / "outside" / "workspace"
    folder.mkdir(parents=True)
    return folder.resolve()


@pytest.fixture(scope="session")
def jails() -> Mapping[str, Sandbox]:
    """The sandboxes that this machine allows, by their names."""
    found: dict[str, Sandbox] = {}
    for mode in JAILS:
        try:
            with structlog.testing.capture_logs(), pytest.MonkeyPatch.context() as patch:
                patch.setenv("container", "as root it is not offered elsewhere")
                found[mode] = find_sandbox(mode) or pytest.fail("a sandbox that is required is there")
        except SettingsError:
            continue
    return found


@pytest.fixture(params=EACH_JAIL)
def jail(request: pytest.FixtureRequest, jails: Mapping[str, Sandbox]) -> Sandbox:
    """Each sandbox."""
    if request.param not in jails:
        pytest.skip(f"{request.param} does not work on this machine")
    return jails[request.param]


@pytest.fixture(params=[*EACH_JAIL, "bare"])
def sandbox(request: pytest.FixtureRequest, jails: Mapping[str, Sandbox]) -> Sandbox | None:
    """Each test with each sandbox, and without one."""
    if request.param == "bare":
        return None
    if request.param not in jails:
        pytest.skip(f"{request.param} does not work on this machine")
    return jails[request.param]
