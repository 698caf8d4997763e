"""A workspace full of ways out, in a folder that holds what must not be reached."""

import os
import socket
from pathlib import Path

SECRET = "canary-7d1f-outside"


def lay(workspace: Path) -> None:
    """Fills the workspace with links, and its surroundings with secrets."""
    outside = workspace.parent
    (outside / "secret.txt").write_text(SECRET)
    (outside / "workspace2").mkdir()
    (outside / "workspace2" / "secret.txt").write_text(SECRET)
    (workspace / "sub" / "deeper").mkdir(parents=True)
    (workspace / "sub" / "inside.txt").write_text("inside")
    links: dict[str, str | Path] = {
        "link-to-secret": "../secret.txt",
        "absolute-link-to-secret": outside / "secret.txt",
        "link-to-outside": "..",
        "absolute-link-to-outside": outside,
        "chain-1": "chain-2",
        "chain-2": "sub/chain-3",
        "sub/chain-3": "../link-to-secret",
        "sub/link-up": "../..",
        "link-out-and-back": "../workspace",
        "link-to-root": "/",
        "link-to-proc": "/proc",
        "link-to-dev": "/dev",
        "dangling-outside": "../made-by-a-link.txt",
        "loop": "loop",
        "loop-a": "loop-b",
        "loop-b": "loop-a",
    }
    for name, target in links.items():
        (workspace / name).symlink_to(target)
    os.mkfifo(workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(workspace)  # a socket's path may be 107 bytes long at most
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)


def surroundings(workspace: Path) -> dict[str, bytes]:
    """Every file outside the workspace, to be compared."""
    outside = workspace.parent
    return {
        str(path.relative_to(outside)): path.read_bytes() if path.is_file() else b""
        for path in sorted(outside.rglob("*"))
        if not path.is_relative_to(workspace)
    }
