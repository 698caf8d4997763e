"""A copy of the tree in which the rows are a version further: tool calls have a field `host` more."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from onrecord.audit.v1 import audit_pb2

from audit_svc.sqlite.open.migrate import load_migrations
from demo.processes import REPOSITORY
from recording.row_version import ROW_VERSION

ROW = audit_pb2.AuditRow.DESCRIPTOR
_NEEDED = (
    "audit_svc",
    "recording",
    "service_kit",
    "protos",
    "demo",
    "tests/audit_svc/samples.py",
    "tests/audit_svc/stubs.py",
    "tests/recording/samples.py",
)


def make_newer_tree(root: Path) -> Path:
    """Makes the copy at root, by the edits that CONTRIBUTING.md names; returns root."""
    for name in _NEEDED:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    number = max(field.number for field in ROW.fields) + 1
    version = load_migrations()[-1].version + 1
    _insert_before_end(root / "protos" / ROW.file.name, f"message {ROW.name} {{", "}", f"  string host = {number};")
    columns = root / "audit_svc/ledger/tables.py"
    _insert_before_end(columns, "TOOL_CALL_COLUMNS: tuple[Column, ...] = (", ")", '    Text("host", limit=64),')
    migration = root / f"audit_svc/sqlite/migrations/{version:04d}_host"
    migration.with_suffix(".up.sql").write_text("ALTER TABLE tool_call_log ADD COLUMN host TEXT NOT NULL DEFAULT '';\n")
    migration.with_suffix(".down.sql").write_text("ALTER TABLE tool_call_log DROP COLUMN host;\n")
    (root / "recording/row_version.py").write_text(f'"""A version further."""\n\nROW_VERSION = {ROW_VERSION + 1}\n')
    subprocess.run([sys.executable, root / "protos/generate.py"], check=True, capture_output=True, timeout=120)
    return root


def environment_of(tree: Path) -> dict[str, str]:
    """The environment in which programs of the copy run."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "protos")])}


def run_in(tree: Path, *command: str, **variables: str) -> str:
    """What a Python program of the copy prints.

    Raises:
        AssertionError: it failed.
    """
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env={**environment_of(tree), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _insert_before_end(file: Path, begin: str, end: str, line: str) -> None:
    """Puts a line before the first line `end` that follows the line `begin`."""
    text, count = re.subn(
        rf"(^{re.escape(begin)}\n.*?)^{re.escape(end)}\n",
        lambda found: f"{found[1]}{line}\n{end}\n",
        file.read_text(),
        count=1,
        flags=re.MULTILINE | re.DOTALL,
    )
    assert count == 1
    file.write_text(text)
