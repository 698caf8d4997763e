"""What `make check` lets the protos become: more, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.processes import REPOSITORY

GATEWAY, AUDIT = "onrecord/gateway/v1/gateway.proto", "onrecord/audit/v1/audit.proto"
COMMON, QUESTIONS = "onrecord/common/v1/common.proto", "onrecord/audit/v1/questions.proto"


def breaking(folder: Path) -> subprocess.CompletedProcess[str]:
    buf = Path(sys.executable).with_name("buf")
    return subprocess.run(
        [buf, "breaking", "--against", "released.binpb"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REPOSITORY / "protos", tmp_path / "protos"))


def change(protos: Path, file: str, old: str, new: str) -> None:
    path = protos / file
    text, count = re.subn(old, new, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param(GATEWAY, r"string input = 4;", "string input = 40;", id="renumbered"),
        pytest.param(GATEWAY, r"string input = 4;", "string text = 4;", id="renamed"),
        pytest.param(AUDIT, r"int64 duration_ms = 6;", "string duration_ms = 6;", id="retyped"),
        pytest.param(COMMON, r"OUTCOME_DENIED = 4;", "", id="enum value taken away"),
        pytest.param(AUDIT, r"rpc RecordBatch\([^}]*\}", "", id="rpc taken away"),
    ],
)
def test_a_change_that_breaks_clients_of_the_last_release_is_refused(protos, file, old, new):
    change(protos, file, old, new)
    refused = breaking(protos)
    assert refused.returncode != 0
    assert file in refused.stdout


@pytest.mark.long
def test_a_message_that_moves_to_another_file_is_refused(protos):
    """Code that was generated for most languages imports it from where it was."""
    message = re.search(r"\nmessage PositionRange \{.*?\n\}\n", (protos / QUESTIONS).read_text(), re.DOTALL)
    assert message
    change(protos, QUESTIONS, re.escape(message.group()), "")
    with (protos / AUDIT).open("a") as file:
        file.write(message.group())
    refused = breaking(protos)
    assert refused.returncode != 0
    assert QUESTIONS in refused.stdout


@pytest.mark.long
def test_a_field_more_is_no_break(protos):
    change(protos, GATEWAY, r"string input = 4;", "string input = 4;\n  string hint = 400;")
    accepted = breaking(protos)
    assert (accepted.returncode, accepted.stdout) == (0, "")
