"""Prints what pip has to install for an image: the dependencies in pyproject.toml, less what only the other needs.

Usage: requirements.py common|audit|gateway [EXTRA …]
"""

import re
import sys
import tomllib
from pathlib import Path

# A dependency that is not named here goes into both images, so that a new one is never missing.
ONLY = {
    "audit": {"apsw", "pyroaring"},
    "gateway": {"genai-prices", "html-to-markdown", "httpx2", "uuid-utils"},
}


def requirements(part: str, dependencies: list[str]) -> list[str]:
    """The dependencies of part: "audit", "gateway", or "common" for those that both need."""
    wanted = {name: part for part, names in ONLY.items() for name in names}
    return [line for line in dependencies if wanted.get(re.split(r"[^\w-]", line)[0], "common") == part]


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = [line for extra in sys.argv[2:] for line in project["optional-dependencies"][extra]]
    print("\n".join([*requirements(sys.argv[1], project["dependencies"]), *extras]))
