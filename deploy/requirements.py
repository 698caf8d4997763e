"""Prints what pip must install for an image: the dependencies of both distributions, without those of the other image.

Usage: requirements.py common|audit|gateway [EXTRA …]
"""

import re
import sys
import tomllib
from pathlib import Path

# A dependency that is not listed here goes into both images, so that a new one is never missing.
ONLY = {
    "audit": {"apsw"},
    "gateway": {"genai-prices", "html-to-markdown", "httpx2"},
}


# Built here, not fetched.
OWN = {"onrecord-client"}


def name_of(requirement: str) -> str:
    """The name in a requirement such as `apsw>=3`."""
    return re.split(r"[^\w-]", requirement)[0]


def requirements(part: str, dependencies: list[str]) -> list[str]:
    """The dependencies of part: "audit", "gateway", or "common" for those that both need."""
    wanted = {name: part for part, names in ONLY.items() for name in names}
    return [line for line in dependencies if name_of(line) not in OWN and wanted.get(name_of(line), "common") == part]


if __name__ == "__main__":
    project, client = (
        tomllib.loads(Path(folder, "pyproject.toml").read_text())["project"] for folder in (".", "clients/python")
    )
    extras = [line for extra in sys.argv[2:] for line in project["optional-dependencies"][extra]]
    dependencies = sorted({*project["dependencies"], *client["dependencies"]})
    print("\n".join([*requirements(sys.argv[1], dependencies), *extras]))
