"""Prints what pip must install for an image: the dependencies of both distributions, without those of the other images.

Usage: requirements.py common|audit|gateway|intake [EXTRA …]
       requirements.py locked FOLDER    the entries of requirements.lock, with their hashes, of the wheels in a folder
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

# A dependency that is not listed here goes into all images, so that a new one is never missing.
ONLY = {
    "audit": {"apsw"},
    "gateway": {"html-to-markdown", "httpx2"},
}


# Built here, not fetched.
OWN = {"onrecord-client"}


def name_of(requirement: str) -> str:
    """The name in a requirement such as `apsw>=3`."""
    return re.split(r"[^\w-]", requirement)[0]


def requirements(part: str, dependencies: list[str]) -> list[str]:
    """The dependencies of part: "audit", "gateway", or "common" for those that all need."""
    wanted = {name: part for part, names in ONLY.items() for name in names}
    return [line for line in dependencies if name_of(line) not in OWN and wanted.get(name_of(line), "common") == part]


def locked(lock: Path, folder: Path) -> Iterator[str]:
    """The lock's entry of each wheel.

    Raises:
        SystemExit: it has none.
    """
    entries = {re.split("==", entry)[0]: entry for entry in re.split(r"\n(?=\S)", lock.read_text().strip())}
    for wheel in sorted(folder.glob("*.whl")):
        name = re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()
        if name not in entries:
            raise SystemExit(f"{wheel.name} is not in {lock.name}: run deploy/lock")
        yield entries[name]


def main() -> None:
    """Prints what the arguments ask for."""
    if sys.argv[1] == "locked":
        print("\n".join(locked(Path(__file__).with_name("requirements.lock"), Path(sys.argv[2]))))
        return
    project, client = (
        tomllib.loads(Path(folder, "pyproject.toml").read_text())["project"] for folder in (".", "clients/python")
    )
    extras = [line for extra in sys.argv[2:] for line in project["optional-dependencies"][extra]]
    dependencies = sorted({*project["dependencies"], *client["dependencies"]})
    print("\n".join([*requirements(sys.argv[1], dependencies), *extras]))


if __name__ == "__main__":
    main()
