"""Keeps Claude's program, and what it starts, from reading configuration in the workspace, which models write to.

| in the workspace                        | what keeps it out                                                        |
|-----------------------------------------|--------------------------------------------------------------------------|
| `.claude/`, `.mcp.json`, `CLAUDE.md`    | `--setting-sources=user`: hooks, helpers, servers, commands, skills,     |
|                                         | agents and rules of a project are not read                               |
| a file that an input names (`@name`)    | an option of the program, and the position of the input (see prompt)     |
| `.git/config`, hooks, filters           | git treats the repository as another user's (see GIT)                    |
| programs, if PATH is relative           | such entries of PATH, and those that lead there, are left out            |
| a folder or file of the user's settings | refused at start if it lies there (see SETTINGS)                         |

Tested with the real program in tests/engines_claude/test_real_isolation.py. docs/security.md says what is left.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway_svc import programs
from gateway_svc.errors import SettingsError
from gateway_svc.workspace import check_programs

SOURCES = "--setting-sources"
SWITCHES = {"CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1", "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1"}
GIT = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "safe.bareRepository": "explicit",
}
"""Git settings that override the repository's. The program lets models run `git status` and the like unasked, and a
repository's filters and drivers have arbitrary names, which nothing overrides. So git also treats every repository as
another user's (git 2.35.2 and later), and works only in those that the deployment's own `safe.directory` names."""
SETTINGS = (
    *("CLAUDE_CONFIG_DIR", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_EXEC_PATH"),
    *("RIPGREP_CONFIG_PATH", "BASH_ENV", "ZDOTDIR"),
)
"""Variables that tell the program, or git, ripgrep and shells below it, where their settings are; beside HOME."""
FOREIGN_REPOSITORIES = "GIT_TEST_ASSUME_DIFFERENT_OWNER"


def sources(command: Sequence[str]) -> list[str]:
    """The option that restricts the program to the user's settings, unless the deployment's command has its own."""
    chosen = any(part.partition("=")[0] == SOURCES for part in command)
    return [] if chosen else [f"{SOURCES}=user"]


def isolated(environment: Mapping[str, str], workspace: Path) -> dict[str, str]:
    """The environment with the settings above."""
    number = environment.get("GIT_CONFIG_COUNT", "")
    before = int(number) if number.isdecimal() else 0
    git = {"GIT_CONFIG_COUNT": str(before + len(GIT)), FOREIGN_REPOSITORIES: "1"}
    for index, (name, value) in enumerate(GIT.items(), before):
        git |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    path = os.pathsep.join(outside(environment.get("PATH", os.defpath), workspace))
    return {**environment, **SWITCHES, **git, "PATH": path}


def outside(path: str, workspace: Path) -> list[str]:
    """The folders of a PATH that are absolute and that models cannot write to."""
    return [folder for folder in programs.search_path(path) if not _within(folder, workspace)]


def find_program(name: str, path: str, workspace: Path) -> str:
    """The absolute path of a program, which will be started in the workspace.

    A relative path is relative to the gateway's own folder; a name is looked up in `path`.

    Raises:
        FileNotFoundError: it is not there.
    """
    if os.sep in name:
        return str(Path(name).absolute())
    for folder in outside(path, workspace):
        found = Path(folder, name)
        if found.is_file() and os.access(found, os.X_OK) and not _within(str(found), workspace):
            return str(found)
    raise FileNotFoundError(name)


def check(command: Sequence[str], environment: Mapping[str, str], workspace: Path) -> None:
    """Refuses a workspace that holds the program, a file in its command, or the user's settings for it.

    Raises:
        SettingsError: the program, the home folder, or what a variable of SETTINGS names lies in the workspace.
    """
    check_programs(workspace.resolve(), "GATEWAY_CLAUDE_COMMAND", command)
    homes = {"HOME": environment.get("HOME") or os.path.expanduser("~")}  # noqa: PTH111 - where there is none, it stays ~
    homes |= {name: environment[name] for name in SETTINGS if environment.get(name)}
    for name, folder in homes.items():
        if not Path(folder).is_absolute() or _within(folder, workspace):
            raise SettingsError(
                f"{name}: must be absolute and not lie in GATEWAY_WORKSPACE: it holds settings of Claude's program"
                " or of what it starts, and tools could write them there"
            )


def _within(path: str, workspace: Path) -> bool:
    return Path(path).resolve().is_relative_to(workspace.resolve())
