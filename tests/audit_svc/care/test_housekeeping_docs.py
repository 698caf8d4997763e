"""The manual's examples of housekeeping, run as they stand there, from the first to the last."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.processes import REPOSITORY
from tests.audit_svc.aged import make_ledger
from tests.audit_svc.test_process import found, serve


def examples(section: str) -> dict[str, str]:
    """The shell blocks of the part of the manual below "## section", by the headings above them."""
    manual = (REPOSITORY / "docs" / "operations.md").read_text()
    part = manual.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return {
        text.split("\n")[0]: "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        for text in part.split("\n### ")[1:]
    }


def shell(script: str, folder: Path, database: Path) -> str:
    """What script prints; it must succeed in each line."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {
        "PATH": path,
        "HOME": str(folder),
        "AUDIT_DB": str(database),
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/protos",
    }
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_the_examples_of_the_manual_do_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIT_SEAL_SECONDS", "0.1")
    database = tmp_path / "ledger" / "audit.db"
    database.parent.mkdir()
    make_ledger(database, hours=3)
    blocks = examples("Housekeeping")
    assert list(blocks) == [
        "Backup", "Restore", "Rights in PostgreSQL", "Move to PostgreSQL, or back", "A ledger that is not what it was",
        "The seal", "Read a copy", "Check", "Prune and retention", "Erase", "Legal hold", "Vacuum", "Rollups", "Texts",
    ]  # fmt: skip
    with serve(database) as service:
        for name in ("Backup", "Check", "Prune and retention", "Erase", "Legal hold"):
            script = blocks[name].replace("127.0.0.1:50052", service.address).replace("SESSION", "session-1")
            blocks[name] = shell(script, tmp_path, database)
        assert service.terminate() == 0
    sealed = shell(blocks["The seal"].replace("CALL_ID", min(found(database))), tmp_path, database)
    assert "0 pruned, 0 lost by restores" in sealed
    assert "wrong" not in sealed
    assert '"kind":"tool_call"' in sealed
    assert blocks["Backup"].count("30 tool calls") == 1
    assert blocks["Backup"].count("SHA-256") == 1
    assert blocks["Check"].count("rollups") == 2
    assert "wrong" not in blocks["Check"]
    assert "removed 0 tool calls" in blocks["Prune and retention"]
    assert [line.split()[0] for line in blocks["Legal hold"].splitlines()] == ["placed", "name", "case", "lifted"]
    assert blocks["Erase"].startswith("would erase the texts of ")
    lost = found(database)
    database.write_bytes(b"lost")
    restored = shell(blocks["Restore"], tmp_path, database)
    assert "integrity" in restored
    assert "lost: " in restored
    assert sorted(found(database)) == sorted(lost)
    copied = shell(blocks["Read a copy"], tmp_path, database).splitlines()
    assert copied[0] == copied[-1] != ""
    assert "gave back" in shell(blocks["Vacuum"], tmp_path, database)
    assert shell(blocks["Rollups"], tmp_path, database) == "the rollups are what the rows say\nrebuilt the rollups\n"
    said = "the index of texts is what the rows say\nrebuilt the index of texts\n"
    assert shell(blocks["Texts"], tmp_path, database) == said
