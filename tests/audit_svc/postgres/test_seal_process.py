"""The sealing process beside a replica: it seals while its replica writes, and no longer."""

import asyncio
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_svc.errors import WrongSetting
from audit_svc.postgres.open.connection import Connection
from audit_svc.seal.reader import SealReader
from audit_svc.sealing.process import SealProcess
from audit_svc.settings import AuditSettings

pytestmark = pytest.mark.postgres
QUERY = "INSERT INTO query_log (caller, method, filters, rows, duration_ms, status, created_at) VALUES ({})"


def settings(url: str, **others: Any) -> AuditSettings:
    return AuditSettings(seal_seconds=0.05).model_copy(update={"db": url, **others})


async def until(seal: SealProcess, leaves: int) -> None:
    async with asyncio.timeout(60):
        while seal._leaves != leaves:
            await asyncio.sleep(0.05)


def add_row(connection: Connection) -> None:
    connection.execute(QUERY.format("'ada', 'ListToolCalls', '{}', 1, 2, 'OK', 3"))


async def test_the_replica_that_writes_seals(migrated: Connection, postgres_database: str, tmp_path: Path):
    key = tmp_path / "key"
    add_row(migrated)
    writer = [0]
    replicas = [
        SealProcess(settings(postgres_database, seal_key_file=key), lambda at=at: writer == [at])  # type: ignore[misc]
        for at in (0, 1)
    ]
    async with replicas[0].running(), replicas[1].running():
        await until(replicas[0], 1)
        assert replicas[1]._process is None
        assert replicas[1].lag_seconds == 0
        writer[0] = 1
        assert replicas[0]._process
        await replicas[0]._process.wait()
        add_row(migrated)
        await until(replicas[1], 2)
        for replica in replicas:  # both answer
            assert replica.reader
            head = await replica.reader.ask(SealReader.head)
            assert head.checkpoint.size == 2
            assert replica.why_troubled() == ""


def test_a_key_has_to_be_named(postgres_database: str):
    with pytest.raises(WrongSetting, match="AUDIT_SEAL_KEY_FILE has to name the key"):
        SealProcess(settings(postgres_database))
    with closing(SealProcess(settings(postgres_database, seal_seconds=0.0)).place.open_log()) as log:
        assert log.place() == "the ledger's database"


def test_a_service_without_a_key_ends_at_once(postgres_database: str):
    environment = os.environ | {"AUDIT_DB": postgres_database, "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_SEAL_SECONDS": "1"}
    command = [sys.executable, "-m", "audit_svc", "serve"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "AUDIT_SEAL_KEY_FILE has to name the key" in ended.stderr
