"""The workspace must be apart from all that the gateway runs or reads: a model writes there, and none of it is ours."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway_svc.errors import SettingsError

PACKAGES = ("gateway_svc", "recording", "service_kit", "onrecord")
WAY_OUT = "name a folder that holds nothing else, such as GATEWAY_WORKSPACE=$HOME/onrecord-workspace"


def check_workspace(workspace: Path, settings: Iterable[Any]) -> None:
    """Refuses a workspace that holds, or lies in, what the gateway runs, or that holds a file that its settings name.

    Raises:
        SettingsError: says what it is, and the way out.
    """
    for what, path in _code():
        if path.is_relative_to(workspace) or workspace.is_relative_to(path):
            raise SettingsError(f"GATEWAY_WORKSPACE: {workspace} and {what} ({path}) are not apart: {WAY_OUT}")
    for entry in filter(None, sys.path):
        if Path(entry).resolve().is_relative_to(workspace):
            raise SettingsError(f"GATEWAY_WORKSPACE: {workspace} holds what Python loads ({entry}): {WAY_OUT}")
    for chosen in settings:
        prefix = chosen.model_config.get("env_prefix", "")
        for name in type(chosen).model_fields:
            value = getattr(chosen, name)
            if isinstance(value, Path) and name != "workspace" and value.resolve().is_relative_to(workspace):
                raise SettingsError(f"{prefix}{name.upper()}: {value} must not lie in GATEWAY_WORKSPACE: {WAY_OUT}")


def check_programs(workspace: Path, variable: str, programs: Iterable[str]) -> None:
    """Refuses programs, or files that programs are given, which lie in the workspace.

    Raises:
        SettingsError: one does.
    """
    for program in programs:
        found = Path(shutil.which(program) or program).expanduser()
        if found.is_file() and found.resolve().is_relative_to(workspace):
            raise SettingsError(
                f"{variable}: {program} must not lie in GATEWAY_WORKSPACE, where a model could write it"
            )


def _code() -> Iterator[tuple[str, Path]]:
    yield "the Python that runs the gateway", Path(sys.prefix).resolve()
    yield "the Python that runs the gateway", Path(sys.executable).resolve().parent
    for name in PACKAGES:
        for folder in getattr(sys.modules.get(name), "__path__", ()):
            yield f"the package {name}", Path(folder).resolve()
