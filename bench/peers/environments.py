"""The peers' virtual environments: pins.toml says what is in each; they stay below .state from run to run."""

import subprocess
import sys
import tomllib
from pathlib import Path

from demo.processes import REPOSITORY

PINS = Path(__file__).with_name("pins.toml")


def python_of(name: str) -> Path:
    """The interpreter of an environment, which is made where it is not there or its pins have changed.

    Raises:
        subprocess.CalledProcessError: it could not be made; pip said why on stderr.
    """
    pins = "\n".join(tomllib.loads(PINS.read_text())[name])
    folder = REPOSITORY / ".state" / "bench-peers" / name
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if not installed.exists() or installed.read_text() != pins:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        requirements = folder / "requirements.txt"
        requirements.write_text(pins)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        installed.write_text(pins)
    return python


def version_of(environment: str, package: str) -> str:
    """The pinned version of a package.

    Raises:
        KeyError: the environment has no such package.
    """
    pins = dict(pin.split("==") for pin in tomllib.loads(PINS.read_text())[environment])
    return str(pins[package])
