"""A worker's job: walks a folder tree without following links, and lists matching names or lines.

A process can be killed; a thread that is busy in `re` cannot.
"""

import fnmatch
import os
import re
import stat
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

SKIPPED_FOLDERS = frozenset(
    {".git", ".hg", ".svn", ".venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache"}
)
MAX_DEPTH = 64
MAX_FOLDER_ENTRIES = 100_000
MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_LINE_CHARACTERS = 400
MAX_MATCHES_PER_FILE = 200
"""That are shown; one more is looked for, so that it can be told that there are more."""
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def walk(folder: int, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str, int, bool]]:
    """Yields each file and folder below: its path, its name, its folder's descriptor, and whether it is a folder.

    In the order of names, a folder's content after it. Links are neither followed nor listed. SKIPPED_FOLDERS are left
    out, and so are entries of a folder beyond MAX_FOLDER_ENTRIES.
    """
    with os.scandir(folder) as entries:
        some = islice(entries, MAX_FOLDER_ENTRIES)
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in some if not entry.is_symlink())
    for name, is_folder in found:
        if is_folder and name in SKIPPED_FOLDERS:
            continue
        yield prefix + name, name, folder, is_folder
        if is_folder and depth < MAX_DEPTH:
            try:
                inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
            except OSError:  # no permission, or it is gone
                continue
            try:
                yield from walk(inner, f"{prefix}{name}/", depth + 1)
            finally:
                os.close(inner)


class Glob:
    """A pattern of names with *, ? and [], separated by slashes, and ** for any number of folders."""

    def __init__(self, pattern: str) -> None:
        """A pattern without a slash matches names in every folder."""
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if len(parts) == 1 and not pattern.startswith("/"):
            parts.insert(0, "**")
        parts = [part for at, part in enumerate(parts) if part != "**" or parts[at - 1 : at] != ["**"]]
        self._parts = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts]

    def matches(self, path: str) -> bool:
        """Whether the pattern matches a whole path, in time proportional to the product of both lengths."""
        states = self.begin()
        for name in path.split("/"):
            states = self.follow(states, name)
        return self.is_whole(states)

    def begin(self) -> set[int]:
        """Which parts of the pattern may be next, at the beginning of a path."""
        return self._with_skips({0})

    def follow(self, states: set[int], name: str) -> set[int]:
        """Which parts may be next behind a name."""
        return self._with_skips(
            {
                state if part is None else state + 1
                for state in states
                if state < len(self._parts) and ((part := self._parts[state]) is None or part.match(name))
            }
        )

    def is_whole(self, states: set[int]) -> bool:
        """Whether the pattern ends there."""
        return len(self._parts) in states

    def _with_skips(self, states: set[int]) -> set[int]:
        """The states, and those reached if ** matches nothing."""
        reached = set(states)
        for state in sorted(states):
            while state < len(self._parts) and self._parts[state] is None:
                state += 1
                reached.add(state)
        return reached


class Matcher:
    """Matches the paths of a walk. What a folder's path has matched is kept for all that is in it."""

    def __init__(self, glob: Glob) -> None:
        self._glob = glob
        self._states = [glob.begin()]

    def matches(self, path: str, name: str, *, is_folder: bool) -> bool:
        """Whether the pattern matches the next path of the walk."""
        depth = path.count("/")
        states = self._glob.follow(self._states[depth], name)
        if is_folder:
            self._states[depth + 1 :] = [states]
        return self._glob.is_whole(states)


def search(pattern: re.Pattern[str], files: Glob | None, folder: int) -> Iterator[str]:
    """Yields lines `./path:number:text` of text files below folder."""
    matcher = Matcher(files) if files else None
    for path, name, parent, is_folder in walk(folder):
        if (matcher and not matcher.matches(path, name, is_folder=is_folder)) or is_folder:
            continue
        try:
            descriptor = os.open(name, FILE_FLAGS, dir_fd=parent)
        except OSError:  # no permission, it is gone, or a link took its place
            continue
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                for line in search_content(pattern, file.read(MAX_FILE_BYTES + 1)):
                    yield f"./{path}:{line}"


def search_content(pattern: re.Pattern[str], content: bytes) -> Iterator[str]:
    """Yields lines `number:text`; none for a binary or a very large file."""
    if len(content) > MAX_FILE_BYTES or b"\0" in content:
        return
    matches = 0
    for number, line in enumerate(content.decode(errors="replace").split("\n"), start=1):
        if pattern.search(line.removesuffix("\r")):
            yield f"{number}:{line[:MAX_LINE_CHARACTERS]}"
            matches += 1
            if matches > MAX_MATCHES_PER_FILE:
                return


def glob(wanted: dict[str, Any]) -> int:
    """Lists matching paths, in the order of names. Exit codes: 0 if the search was complete, 3 if it ended early."""
    matcher, found = Matcher(Glob(wanted["pattern"])), 0
    for visited, (path, name, _, is_folder) in enumerate(walk(os.open(".", FOLDER_FLAGS))):
        if visited == wanted["max_visited"]:
            return 3
        if matcher.matches(path, name, is_folder=is_folder) and not is_folder:
            found += 1
            sys.stdout.buffer.write(os.fsencode(path) + b"\0")
            if found > wanted["max_files"]:
                break
    return 0


def grep(wanted: dict[str, Any]) -> int:
    """Searches `./`, or stdin, which is a file. Exit codes: 0 with matches, 1 without, 2 for a bad pattern."""
    try:
        pattern = re.compile(wanted["pattern"], re.IGNORECASE if wanted["ignore_case"] else 0)
    except (re.error, RecursionError, OverflowError):
        print("bad pattern")
        return 2
    if wanted["stdin"]:
        lines = search_content(pattern, sys.stdin.buffer.read(MAX_FILE_BYTES + 1))
    else:
        lines = search(pattern, Glob(wanted["glob"]) if wanted["glob"] else None, os.open(".", FOLDER_FLAGS))
    found = 1
    for line in lines:
        sys.stdout.buffer.write(os.fsencode(line) + b"\n")
        found = 0
    return found


def main(wanted: dict[str, Any]) -> int:
    """Runs the job in the current folder."""
    return glob(wanted) if wanted["do"] == "glob" else grep(wanted)
