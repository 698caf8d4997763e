"""Installs the agents of versions.toml, each in a folder of its own: `python -m tests.agents.install [NAME…]`.

Without names, those that are chosen for a run: see `chosen`. What cannot be installed is said and left, so that the
others run all the same; its tests fail.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = Path(sys.prefix) / "agents"
"""Within the virtual environment, where `make clean` finds it."""
SECONDS = 900
VERSIONS: Mapping[str, Mapping[str, Any]] = tomllib.loads((HERE / "versions.toml").read_text("utf-8"))


def chosen() -> list[str]:
    """The agents of this run, by AGENTS: `all`, names with commas between, or those of the short form without."""
    told = os.environ.get("AGENTS", "")
    if told == "all":
        return list(VERSIONS)
    names = told.split(",") if told else [name for name, has in VERSIONS.items() if has.get("short")]
    if unknown := [name for name in names if name not in VERSIONS]:
        raise SystemExit(f"AGENTS: {', '.join(unknown)}: known are {', '.join(VERSIONS)}, or `all`")
    return names


def version(name: str) -> str:
    """The version of an agent that is pinned."""
    packages = VERSIONS[name].get("npm") or VERSIONS[name]["pip"]
    return re.split("==|@", packages[0])[-1]


def install(name: str) -> None:
    """Installs one, unless what is pinned is there.

    Raises:
        subprocess.SubprocessError: it cannot be.
    """
    wanted, folder = VERSIONS[name], FOLDER / name
    ready = folder / ".ready"
    if ready.exists() and json.loads(ready.read_text("utf-8")) == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = monotonic()
    if packages := wanted.get("npm"):
        run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages])
    if packages := wanted.get("pip"):
        venv.create(folder, clear=True, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
        run([*pip, "--disable-pip-version-check", "--no-compile", *packages])
    ready.write_text(json.dumps(wanted), "utf-8")
    print(f"{name}: installed in {monotonic() - began:.0f} s", flush=True)


def run(command: list[str]) -> None:
    """Runs an installer."""
    subprocess.run(command, check=True, timeout=SECONDS)


def main() -> None:
    """The command line."""
    for name in sys.argv[1:] or chosen():
        try:
            install(name)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name} cannot be installed: {error}", flush=True)


if __name__ == "__main__":
    main()
