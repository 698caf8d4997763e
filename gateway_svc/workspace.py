"""The workspace must be apart from all that the gateway runs or reads: a model writes there, and none of it is ours."""

import os
import re
import shutil
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway_svc.errors import SettingsError
from gateway_svc.programs import search_path

PACKAGES = ("gateway_svc", "recording", "service_kit", "onrecord")
SYSTEM = ("/boot", "/dev", "/etc", "/proc", "/sys")
LOADED_FROM = re.compile(r"HOME|(LD|PYTHON|SSL|GRPC|OTEL|XDG|NODE|CLAUDE)[A-Z_]*")
"""Variables that name what programs and libraries load, trust or are set by."""
WAY_OUT = "name a folder that holds nothing else, such as GATEWAY_WORKSPACE=$HOME/onrecord-workspace"


def check_workspace(workspace: Path, settings: Iterable[Any]) -> None:
    """Refuses a workspace that holds, or lies in, what the gateway runs, or that holds what its settings name.

    A socket, too: by its path a jailed command would reach a service without a network.

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
            named = _path(getattr(chosen, name))
            if named and name != "workspace" and named.is_relative_to(workspace):
                raise SettingsError(f"{prefix}{name.upper()}: {named} must not lie in GATEWAY_WORKSPACE: {WAY_OUT}")
    check_environment(workspace, os.environ)


def check_state(workspace: Path, state_dir: Path) -> None:
    """Refuses a workspace in a folder of the gateway's own state, and one that is not there: its name may be mistyped.

    Raises:
        SettingsError: it is one, or lies in one, or is no folder, unless it is the one below the state directory.
    """
    own = state_dir / "workspace"
    if workspace.is_relative_to(state_dir) and not workspace.is_relative_to(own):
        raise SettingsError(f"GATEWAY_WORKSPACE: {workspace} lies in the state directory: take {own}, or {WAY_OUT}")
    if workspace != own and not workspace.is_dir():
        what = "is not a folder" if workspace.exists() else "is not there"
        raise SettingsError(f"GATEWAY_WORKSPACE: {workspace} {what}: make it, or name another")


def check_environment(workspace: Path, environment: Mapping[str, str], where: str = "") -> None:
    """Refuses variables that would have programs load what lies in the workspace.

    Raises:
        SettingsError: one does; `where` stands before its name.
    """
    for name, value in environment.items():
        if not LOADED_FROM.fullmatch(name):
            continue
        for folder in search_path(value):
            if Path(folder).resolve().is_relative_to(workspace):
                raise SettingsError(f"{where}{name}: {folder} must not lie in GATEWAY_WORKSPACE: {WAY_OUT}")


def check_programs(workspace: Path, variable: str, words: Iterable[str]) -> None:
    """Refuses programs, or files that programs are given, which lie in the workspace.

    Raises:
        SettingsError: one does.
    """
    for program in (part for word in words for part in (word, *re.split(r"[=\s]", word)) if part):
        found = Path(shutil.which(program) or program).expanduser()
        is_one = found.is_file() or (found.is_absolute() and not found.is_dir())  # or what a model could make one
        if is_one and found.resolve().is_relative_to(workspace):
            raise SettingsError(
                f"{variable}: {program} must not lie in GATEWAY_WORKSPACE, where a model could write it"
            )


def _path(value: object) -> Path | None:
    """The path that a setting is, or the one of a socket as gRPC writes it."""
    if isinstance(value, str) and value.startswith("unix:"):
        value = Path(re.sub("^/+", "/", value.removeprefix("unix:")))
    return value.resolve() if isinstance(value, Path) else None


def _code() -> Iterator[tuple[str, Path]]:
    yield from (("the system", Path(folder)) for folder in SYSTEM)
    yield from (("a folder of PATH", Path(folder).resolve()) for folder in search_path(os.environ.get("PATH", "")))
    if site.ENABLE_USER_SITE:
        yield "the packages of the gateway's user", Path(site.getusersitepackages()).resolve()
    yield "the Python that runs the gateway", Path(sys.prefix).resolve()
    yield "the Python that runs the gateway", Path(sys.executable).resolve().parent
    for name in PACKAGES:
        for folder in getattr(sys.modules.get(name), "__path__", ()):
            yield f"the package {name}", Path(folder).resolve()
