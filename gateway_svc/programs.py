"""Where the gateway looks for the programs that it starts.

They are started in other folders than its own, mostly in the workspace, which models write. A relative entry of PATH
would mean that folder, so none counts.
"""

import os
import shutil
from pathlib import Path


def search_path(path: str) -> list[str]:
    """The absolute folders of a PATH."""
    return [folder for folder in path.split(os.pathsep) if Path(folder).is_absolute()]


def installed(name: str) -> str | None:
    """The absolute path of an installed program, or None."""
    return shutil.which(name, path=os.pathsep.join(search_path(os.environ.get("PATH", os.defpath))))
