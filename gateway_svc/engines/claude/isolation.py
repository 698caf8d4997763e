"""Keeps the workspace, which models write, from being configuration of Claude's program or of what it starts.

| in the workspace                        | what keeps it out                                                        |
|-----------------------------------------|--------------------------------------------------------------------------|
| `.claude/`, `.mcp.json`, `CLAUDE.md`    | `--setting-sources=user`: hooks, helpers, servers, commands, skills,     |
|                                         | agents and rules of a project are not read                               |
| a file that an input names (`@name`)    | a switch of the program's own, and where the input stands (see prompt)   |
| `.git/config`, hooks, filters           | git takes the repository for somebody else's (see GIT)                   |
| programs, where PATH is relative        | such entries of PATH, and those that lead there, are left out            |
| a home folder with the user's settings  | refused at start                                                         |

Tried with the real program in tests/engines_claude/test_real_isolation.py. What is left is in docs/security.md.
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
"""Settings of git's that are stronger than the repository's own. The program lets models run `git status` and the like
unasked, and a repository's filters and drivers have names of their own, which nothing overrides. So git is told besides
that no repository is the user's (as it does where another user owns it, git 2.35.2 and later), and works only in those
that the deployment's own `safe.directory` names."""
FOREIGN_REPOSITORIES = "GIT_TEST_ASSUME_DIFFERENT_OWNER"


def sources(command: Sequence[str]) -> list[str]:
    """The option that lets the program read the user's settings alone, unless the deployment's command has its own."""
    chosen = any(part.partition("=")[0] == SOURCES for part in command)
    return [] if chosen else [f"{SOURCES}=user"]


def isolated(environment: Mapping[str, str], workspace: Path) -> dict[str, str]:
    """The environment with what is named above."""
    number = environment.get("GIT_CONFIG_COUNT", "")
    before = int(number) if number.isdecimal() else 0
    git = {"GIT_CONFIG_COUNT": str(before + len(GIT)), FOREIGN_REPOSITORIES: "1"}
    for index, (name, value) in enumerate(GIT.items(), before):
        git |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    path = os.pathsep.join(outside(environment.get("PATH", os.defpath), workspace))
    return {**environment, **SWITCHES, **git, "PATH": path}


def outside(path: str, workspace: Path) -> list[str]:
    """The folders of a PATH that mean the same wherever a program is started, and that models cannot write."""
    return [folder for folder in programs.search_path(path) if not _within(folder, workspace)]


def find_program(name: str, path: str, workspace: Path) -> str:
    """The absolute path of a program, since it is started in the workspace.

    A path is taken from the gateway's own folder, a name looked up in `path`.

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
    """Refuses a workspace that holds the program, a file that it is given, or the user's settings for it.

    Raises:
        SettingsError: the program, the home folder, or the one in CLAUDE_CONFIG_DIR lies in the workspace.
    """
    check_programs(workspace.resolve(), "GATEWAY_CLAUDE_COMMAND", command)
    homes = {"HOME": environment.get("HOME") or os.path.expanduser("~")}  # noqa: PTH111 - where there is none, it stays ~
    if folder := environment.get("CLAUDE_CONFIG_DIR"):
        homes["CLAUDE_CONFIG_DIR"] = folder
    for name, folder in homes.items():
        if not Path(folder).is_absolute() or _within(folder, workspace):
            raise SettingsError(
                f"{name}: must be absolute and not lie in GATEWAY_WORKSPACE: it holds the settings of Claude's program,"
                " and tools could write them there"
            )


def _within(path: str, workspace: Path) -> bool:
    return Path(path).resolve().is_relative_to(workspace.resolve())
