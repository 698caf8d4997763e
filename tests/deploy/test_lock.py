"""What images are made of is locked: by version and by the hashes of its files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.processes import REPOSITORY

LOCK = REPOSITORY / "deploy" / "requirements.lock"
ENTRY = re.compile(r"([a-z0-9-]+)==(\S+)( ; .+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\\n|$))+", re.MULTILINE)


def requirements(*words: str) -> list[str]:
    program = [sys.executable, str(REPOSITORY / "deploy" / "requirements.py"), *words]
    ran = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return ran.stdout.split("\n") if ran.returncode == 0 else [ran.stderr]


def test_the_lock_names_packages_versions_and_hashes_and_nothing_else():
    assert re.sub(r"\n+", "", ENTRY.sub("", LOCK.read_text())) == ""


@pytest.mark.long
def test_the_lock_has_the_versions_of_the_constraints_and_all_that_images_ask_for():
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    constraints = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}
    locked = {entry[1]: entry[2] for entry in ENTRY.finditer(LOCK.read_text())}
    assert {name: constraints[name] for name in locked.keys() & constraints.keys()} == {
        name: version for name, version in locked.items() if name in constraints
    }
    built = re.findall(r'^ARG EXTRAS_(\w+)="(.*)"$', (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert [part for part, _ in built] == ["AUDIT", "GATEWAY", "INTAKE"]
    asked = [*requirements("common"), *requirements("audit", "otel", "ui", "parquet")]
    asked += [line for part, extras in built for line in requirements(part.lower(), *extras.split())]
    assert {re.split(r"[^\w-]", line)[0] for line in asked if line} - locked.keys() == set()


def test_a_wheel_that_is_not_in_the_lock_is_told(tmp_path: Path):
    (tmp_path / "apsw-0.1-py3-none-any.whl").touch()
    assert requirements("locked", str(tmp_path))[0].startswith("apsw==")
    (tmp_path / "onrecord_evil-1.0-py3-none-any.whl").touch()
    assert requirements("locked", str(tmp_path)) == [
        "onrecord_evil-1.0-py3-none-any.whl is not in requirements.lock: run deploy/lock\n"
    ]
