"""No file or folder that the services and their commands make can be read by another user, whatever the umask is."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import run_command
from demo.script import Call, Script, Step
from tests.e2e.conftest import run_turn

SERVER = Path(__file__).parents[1] / "support" / "mcp_server.py"
SCRIPT = Script(
    steps=(
        Step(
            tool_calls=(
                Call(name="bash", arguments={"command": "echo x > made-by-bash; mkdir made"}),
                Call(name="write", arguments={"path": "new/written.txt", "content": "x"}),
            )
        ),
        Step(text="done"),
    )
)


@pytest.fixture
def umask_of_nothing() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """What below folder others may read, write or enter; sockets and links have no content of their own."""
    return sorted(
        f"{path.relative_to(folder)} {stat.filemode(mode)}"
        for path in folder.rglob("*")
        if not stat.S_ISLNK(mode := path.lstat().st_mode) and mode & 0o077
    )


@pytest.mark.long
@pytest.mark.usefixtures("umask_of_nothing")
async def test_all_that_is_made_is_for_its_user_alone(make_pair, tmp_path):
    servers = tmp_path / "mcp.json"
    servers.write_text(json.dumps({"mcpServers": {"a": {"command": sys.executable, "args": [str(SERVER)]}}}))
    servers.chmod(0o644)  # a file that everybody may write is refused
    pair = await make_pair(SCRIPT)
    pair.start_audit(AUDIT_RETENTION_DAYS="1")
    gateway = pair.start_gateway(
        GATEWAY_BUDGETS="team=a:100",
        GATEWAY_MCP_FILE=str(servers),
        GATEWAY_SPOOL_SYNC="always",
        GATEWAY_AUDIT_MODE="strict",
    )
    await run_turn(await pair.gateway(gateway), new_session=pb.SessionSettings(labels={"team": "a"}))
    await pair.rows(2)
    made = tmp_path / "by-commands"
    made.mkdir()

    async def command(*words: str) -> None:
        ran = await asyncio.to_thread(run_command, "audit_svc", {"AUDIT_DB": str(pair.db)}, *words)
        assert ran.returncode == 0, (words, ran.stderr)

    live = ("--target", pair.audit_address)
    await command("backup", str(made / "by-service" / "copy.db"), *live)
    await command("backup", str(made / "by-file" / "copy.db"))
    for form in ("jsonl", "csv", "parquet"):
        await command("export", "--format", form, "--output", str(made / f"rows.{form}"), *live)
    gateway.terminate()
    kept = [pair.state_dir, pair.db.parent, pair.workspace, made]
    assert {path.name: open_to_others(path) for path in kept} == {path.name: [] for path in kept}
    assert [stat.filemode(path.stat().st_mode) for path in kept[:2]] == ["drwx------"] * 2
