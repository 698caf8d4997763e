"""Finds the programs that the gateway starts.

They run in other folders, mostly in the workspace, which models can write. A relative entry of PATH would mean that
folder, so relative entries are ignored.
"""

import os
import shutil
from pathlib import Path

NO_JAIL = "none"
"""What is said to confine programs where nothing does."""


def search_path(path: str) -> list[str]:
    """The absolute folders of a PATH."""
    return [folder for folder in path.split(os.pathsep) if Path(folder).is_absolute()]


def installed(name: str) -> str | None:
    """The absolute path of an installed program, or None."""
    return shutil.which(name, path=os.pathsep.join(search_path(os.environ.get("PATH", os.defpath))))
