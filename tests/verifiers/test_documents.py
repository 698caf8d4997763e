"""What docs/proof.md tells a stranger to type does what it says."""

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from demo.processes import REPOSITORY, run_command
from tests.verifiers.programs import Log, built, program

pytestmark = pytest.mark.verifiers


@pytest.fixture
def place(log: Log, tmp_path: Path) -> Path:
    """A folder with what the document names."""
    with closing(apsw.Connection(str(log.database), flags=apsw.SQLITE_OPEN_READONLY)) as ledger:
        found = ledger.execute("SELECT id FROM tool_call_log WHERE position = 1234").fetchone()
    proof = run_command("audit_svc", {"AUDIT_DB": str(log.database)}, "proof", str(found[0] if found else ""))
    assert proof.returncode == 0, proof.stderr
    (tmp_path / "call.tlog-proof").write_text(proof.stdout)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "checkpoint").symlink_to(log.kept)
    (tmp_path / "audit.db.seal").symlink_to(log.folder)
    (tmp_path / "tests").symlink_to(REPOSITORY / "tests")
    return tmp_path


def test_a_row_is_checked_as_the_document_says(log: Log, place: Path):
    blocks = commands()
    assert len(blocks) == 3
    for block in blocks:
        ended = typed(block, log, place)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    proof = place / "call.tlog-proof"
    lines = proof.read_text().split("\n")
    lines[3] = lines[4]
    proof.write_text("\n".join(lines))
    assert [bool(typed(block, log, place).returncode) for block in blocks] == [True, True, False]


def commands() -> list[str]:
    """The section's blocks of commands."""
    section = (REPOSITORY / "docs/proof.md").read_text().partition("\n### With a tool that is not ours\n")[2]
    return re.findall(r"^```sh\n(.*?)^```$", re.split("\n##+ ", section)[0], re.DOTALL | re.MULTILINE)


def typed(block: str, log: Log, place: Path) -> subprocess.CompletedProcess[str]:
    built()  # or skips where Go is missing
    env = {**os.environ, "KEY": log.key, "PATH": f"{program('aics-tlog').parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", block]
    return subprocess.run(command, env=env, cwd=place, capture_output=True, text=True, timeout=120, check=False)
