"""Which repository and branch a folder is of, by git's own files. Imports `os` alone: a hook waits for it.

Source of the files' forms: https://git-scm.com/docs/gitrepository-layout and https://git-scm.com/docs/git-config.
"""

import os

MAX_BYTES = 65_536
"""Of a file that is read."""
_MAX_FOLDERS = 64


def repository_and_branch(folder: str) -> tuple[str, str]:
    """The URL of the remote, without its user, and the branch; empty where the folder is of none, or does not say."""
    try:
        own, shared = _git_folders(folder)
        repository = _remote(_read(f"{shared}/config"))
        head = _read(f"{own}/HEAD").strip()
    except (OSError, ValueError):
        return "", ""
    return _shown(without_user(repository)), _shown(head.removeprefix("ref: refs/heads/") if ":" in head else "")


def without_user(url: str) -> str:
    """A repository's URL without user, password, query and fragment; of `git@host:path`, what follows the user.

    Empty where a password and a query cannot be told apart.
    """
    scheme, mark, rest = url.strip().partition("://")
    if not mark or "@" in scheme:
        scheme, mark, rest = "", "", url.strip()
    shown = rest.partition("#")[0].partition("?")[0]
    if "@" in rest[len(shown) :]:
        return ""
    return scheme + mark + shown.rpartition("@")[2]  # a password may have a slash


def _git_folders(folder: str) -> tuple[str, str]:
    """The folder of a working tree's own files, and that of those which all working trees share."""
    for _ in range(_MAX_FOLDERS):
        found = f"{folder.rstrip('/')}/.git"
        if os.path.isdir(found):
            return found, found
        if os.path.isfile(found):
            own = os.path.join(folder, _read(found).removeprefix("gitdir:").strip())
            try:
                return own, os.path.join(own, _read(f"{own}/commondir").strip())
            except OSError:
                return own, own  # a submodule
        above = os.path.dirname(folder)
        if above == folder:
            break
        folder = above
    raise ValueError


def _remote(config: str) -> str:
    """The URL of `origin`, else of the first remote."""
    urls: dict[str, str] = {}
    section = ""
    for line in map(str.strip, config.splitlines()):
        if line.startswith("["):
            section = line.partition("]")[0].removeprefix("[remote").strip(' "') if line.startswith("[remote") else ""
        elif section:
            name, _, value = line.partition("=")
            if name.strip().lower() == "url":
                urls.setdefault(section, value.strip().strip('"'))
    return urls.get("origin") or next(iter(urls.values()), "")


def _shown(text: str) -> str:
    """A text that may stand in a header; else empty."""
    return text if len(text) <= 256 and text.isascii() and text.isprintable() and " " not in text else ""


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, MAX_BYTES).decode()
    finally:
        os.close(fd)
