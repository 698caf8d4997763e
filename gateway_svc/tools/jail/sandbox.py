"""The sandbox that commands run in: bubblewrap, where the machine allows it, else Landlock."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import structlog
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.errors import SettingsError
from gateway_svc.tools.jail.bubblewrap import Bubblewrap, find_bubblewrap
from gateway_svc.tools.jail.landlock import Landlock, find_landlock
from gateway_svc.tools.jail.probe import Sandbox as Sandbox
from service_kit.setting_types import PathList
from service_kit.settings import Settings

SandboxMode = Literal["auto", "required", "bubblewrap", "landlock", "off", "off_as_root"]
DOES_WITHOUT = ("off", "off_as_root")

log = structlog.get_logger(__name__)


class JailSettings(Settings):
    """The settings of the sandbox for all programs that a model starts."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_BASH_")

    sandbox: SandboxMode = Field(
        "auto",
        description="bubblewrap, else Landlock; `required`, `bubblewrap` and `landlock` do not start without any, or"
        " that one; `off` does without, `off_as_root` also where commands own the machine",
    )
    visible: PathList = Field(default_factory=list, description="more paths that commands may read in the sandbox")


def find_sandbox(
    mode: SandboxMode,
    *,
    visible: Sequence[Path] = (),
    hide: Sequence[Path] = (),
    tmp_bytes: int = 512 * 1024 * 1024,
) -> Sandbox | None:
    """Tests which sandbox works here, and logs the result. Call it once, at start; it blocks for a moment.

    `visible` is what commands may read besides the system; `hide` is hidden from that and from the workspace.
    `tmp_bytes` is the size of a command's own /tmp, and of its /dev/shm, in bubblewrap.

    Raises:
        SettingsError: none works that the mode asks for, or root would do without.
    """
    if mode in DOES_WITHOUT:
        if mode == "off" and _root_of_the_machine():
            raise SettingsError(
                "GATEWAY_BASH_SANDBOX is off, and the gateway runs as root outside a container, so that commands"
                " would own the machine: run it as another user, in a container, or with bubblewrap; on a machine that"
                " is the agents' own set off_as_root"
            )
        log.warning("sandbox.off", reason=f"GATEWAY_BASH_SANDBOX is {mode}")
        return None
    shown, hidden = ([path.resolve() for path in paths] for paths in (visible, hide))
    reasons: list[str] = []
    if mode != "landlock":
        found = find_bubblewrap(shown, hidden, tmp_bytes)
        if isinstance(found, Bubblewrap):
            nested = "--disable-userns" not in found.namespaces
            filtered = found.system_calls is not None
            log.info("sandbox.ready", jail=found.name, nested_namespaces=nested, system_call_filter=filtered)
            return found
        reasons.append(f"bubblewrap: {found}")
    if mode != "bubblewrap":
        if _root_of_the_machine():
            second: Landlock | str = "it would not keep root outside a container from changing the modes of files"
        else:
            second = find_landlock(shown, hidden)
        if isinstance(second, Landlock):
            log.warning("sandbox.ready", jail=second.name, abi=second.abi, not_bubblewrap="; ".join(reasons) or None)
            return second
        reasons.append(f"Landlock: {second}")
    reason = "; ".join(reasons)
    if mode != "auto":
        raise SettingsError(f"GATEWAY_BASH_SANDBOX is {mode}, and that does not work here: {reason}")
    log.warning("sandbox.missing", reason=reason)
    return None


def in_container() -> bool:
    """Whether this process runs in a container, as far as container runtimes show it."""
    told = (os.environ.get(name) for name in ("container", "KUBERNETES_SERVICE_HOST"))
    return any(told) or any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))


def _root_of_the_machine() -> bool:
    return os.geteuid() == 0 and not in_container()
