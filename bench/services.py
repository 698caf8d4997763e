"""The ledger and the model server in their own processes, and ledgers that do not answer."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.text.text_index import unindexed_rows
from demo.processes import REPOSITORY, Service, start_service

LATE_SECONDS = 10.0

SCRIPT = {
    "check": False,
    "steps": [
        {
            "text": "I will look that up.",
            "tool_calls": [{"name": "probe", "arguments": {"number": 1}}],
            "repeat": 1_000_000,
        }
    ],
}


def start_ledger(folder: Path, port: int = 0, listen_seconds: float = 30, **settings: str) -> Service:
    """audit_svc on a database in folder. It reads a large one for seconds before it listens."""
    env = {"AUDIT_LISTEN": f"127.0.0.1:{port}", "AUDIT_DB": str(folder / "audit.db"), "AUDIT_LOG_LEVEL": "info"}
    return start_service("audit_svc", {**env, **settings}, "serve", listen_seconds=listen_seconds)


def wait_until_indexed(database: Path) -> None:
    """Waits until the ledger's text index has all rows and it commits nothing more."""
    with closing(open_for_reading(database)) as connection:
        seen = -1
        while unindexed_rows(connection) or seen != connection.data_version():
            seen = connection.data_version()
            time.sleep(0.5)


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def black_hole() -> Iterator[str]:
    """The address of a ledger that accepts connections, but never reads or writes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def late_ledger(address: str) -> Iterator[str]:
    """The address of a proxy that delays every answer of the ledger at address by LATE_SECONDS."""
    with printing_address([sys.executable, "-m", "bench.services", address]) as line:
        yield line


@contextmanager
def model_server(folder: Path, said: Mapping[str, object] = SCRIPT) -> Iterator[str]:
    """The URL of a model server with that script; by default its model always calls the tool `probe`."""
    script = folder / "script.json"
    script.write_text(json.dumps(said), encoding="utf-8")
    with printing_address([sys.executable, "-m", "demo.model_server", "--script", str(script)]) as line:
        yield line.split()[-1]


@contextmanager
def printing_address(command: list[str]) -> Iterator[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "protos")])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=env) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_seconds: float) -> None:
    while data := await source.read(65536):
        asyncio.get_running_loop().call_later(delay_seconds, sink.write, data)
    asyncio.get_running_loop().call_later(delay_seconds, sink.close)


async def _serve_late(address: str) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ledger_reader, ledger_writer = await asyncio.open_connection(*address.rsplit(":", 1))
        await asyncio.gather(_forward(reader, ledger_writer, 0), _forward(ledger_reader, writer, LATE_SECONDS))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)  # noqa: TID251 - it serves until it is killed
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve_late(sys.argv[1]))
