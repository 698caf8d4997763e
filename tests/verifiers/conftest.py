"""A log of a real ledger, and what an insider or somebody without the key can make of it."""

import functools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest

from audit_svc.seal import leaf
from audit_svc.seal.folder import CHECKPOINT, KEY, read_checkpoint, read_key
from audit_svc.seal.history import segments
from audit_svc.seal.tiles import WIDTH, tile_path
from audit_svc.sealing.places import DATABASE
from audit_svc.sqlite.seal import leaves
from audit_svc.sqlite.seal.index import FolderIndex
from bench.rows import make_rows
from demo.processes import REPOSITORY, environment, start_service
from recording.transparency.tree import HASH_BYTES
from tests.audit_svc.samples import request
from tests.audit_svc.seal.conftest import rows as rows_of_each_kind
from tests.audit_svc.stubs import LedgerStub
from tests.verifiers.programs import ORIGIN, Log

FIRST_ROWS, LATER_ROWS, ROWS_A_BATCH = 40_000, 27_000, 1000
"""More together than a tile of the second level has: 65,536."""
PATIENCE_SECONDS = 120


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """As a service has made it from what it was sent."""
    folder = tmp_path_factory.mktemp("ledger")
    database, kept = folder / "audit.db", folder / "kept-checkpoint"
    seal = database.with_name("audit.db.seal")
    env = {"AUDIT_DB": str(database), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_SEAL_ORIGIN": ORIGIN}
    with start_service("audit_svc", {**env, "AUDIT_SEAL_SECONDS": "0.2"}, "serve") as service:
        with grpc.insecure_channel(service.address) as channel:
            stub = LedgerStub(channel)
            kinds = rows_of_each_kind(40)
            sealed = sum(map(len, kinds.values())) + FIRST_ROWS
            stub.RecordBatch(request(*kinds.pop("tool_calls"), producer_id="p", last=1, **kinds), wait_for_ready=True)
            record(stub, 2, FIRST_ROWS)
            verifier = read_key(seal / KEY).verifier
            deadline = time.monotonic() + PATIENCE_SECONDS
            while read_checkpoint(seal / CHECKPOINT, verifier)[0].size < sealed:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            shutil.copy(seal / CHECKPOINT, kept)
            record(stub, 2 + FIRST_ROWS // ROWS_A_BATCH, LATER_ROWS)
        assert service.terminate() == 0
    return Log(database, seal, str(verifier), kept, leaves_of(database, seal))


def record(stub: LedgerStub, number: int, count: int) -> None:
    made = list(make_rows(count))
    for first in range(0, count, ROWS_A_BATCH):
        stub.RecordBatch(request(*made[first : first + ROWS_A_BATCH], producer_id="p", last=number))
        number += 1


def leaves_of(database: Path, folder: Path) -> tuple[bytes, ...]:
    """The leaves of a ledger's rows, in the order of the log."""
    with (
        closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as ledger,
        closing(FolderIndex(folder)) as index,
    ):
        leaves.prepare(ledger)
        known, _ = segments(index, index.size())
        found = [b""] * index.size()
        for name, runs in known.items():
            rows: Any = ledger.execute(leaves.select(leaf.BY_NAME[name], "true"))
            said = dict(rows)
            for run in runs:
                for place in range(run.rows):
                    found[run.first_index + place] = said[run.first_position + place].encode()
    return tuple(found)


# What an insider does who has the key: changes the ledger, and seals it anew as if nothing had been.
IN_THE_LEDGER = {
    "shrunk": "DELETE FROM tool_call_log WHERE position > 30000",
    "forked": "UPDATE tool_call_log SET id = 'f' || id WHERE position > 20000",
    "flipped": "UPDATE tool_call_log SET result_bytes = result_bytes + 1 WHERE position = 77",
    "reordered": (
        "UPDATE tool_call_log SET position = -1 WHERE position = 77; "
        "UPDATE tool_call_log SET position = 77 WHERE position = 78; "
        "UPDATE tool_call_log SET position = 78 WHERE position = -1"
    ),
}


def signed_again(log: Log, change: str, folder: Path) -> Log:
    for path in log.database.parent.glob("audit.db*"):
        if path.is_file():
            shutil.copy(path, folder / path.name)
    database = folder / "audit.db"
    with closing(apsw.Connection(str(database))) as connection, connection:
        connection.execute(IN_THE_LEDGER[change])
    seal = folder / "seal"
    seal.mkdir()
    for name in (KEY, f"{KEY}.pub"):
        shutil.copy(log.folder / name, seal / name)
    command: list[str | Path] = [sys.executable, "-m", "audit_svc.sealing", seal, seal / KEY, ORIGIN, "0.1"]
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment({DATABASE: str(database)}),
        cwd=REPOSITORY,
        check=True,
    )
    return replace(log, database=database, folder=seal, leaves=leaves_of(database, seal))


def not_signed_again(log: Log, change: str, folder: Path) -> Log:
    """What somebody without the key does, to the tiles and to the rows alike."""
    seal = folder / "seal"
    shutil.copytree(log.folder, seal)
    leaves = list(log.leaves)
    place = log.known - 1
    path = seal / tile_path(0, place // WIDTH, WIDTH)
    hashes = bytearray(path.read_bytes())
    begin = place % WIDTH * HASH_BYTES
    if change == "shrunk":
        last = len(leaves) - 1
        shutil.rmtree((seal / tile_path(0, last // WIDTH, 1)).parent)
        del leaves[-1]
    elif change == "forked":
        (folder / "other").mkdir()
        other = signed_again(log, change, folder / "other")
        shutil.rmtree(seal / "tile")
        shutil.copytree(other.folder / "tile", seal / "tile")
        leaves = list(other.leaves)
    elif change == "flipped":
        hashes[begin] ^= 1
        path.write_bytes(hashes)
        leaves[place] = bytes([leaves[place][0] ^ 1]) + leaves[place][1:]
    else:
        before = begin - HASH_BYTES
        moved = hashes[begin : begin + HASH_BYTES] + hashes[before:begin]
        hashes[before : begin + HASH_BYTES] = moved
        path.write_bytes(hashes)
        leaves[place - 1 : place + 1] = leaves[place], leaves[place - 1]
    return replace(log, folder=seal, leaves=tuple(leaves))


Tampering = Callable[[Log, str, Path], Log]
TAMPERINGS: dict[str, Tampering] = {"signed again": signed_again, "not signed again": not_signed_again}


@pytest.fixture(scope="session")
def tampered(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Log]:
    """The log after a change, in one of the two ways."""

    @functools.cache
    def make(change: str, how: str) -> Log:
        return TAMPERINGS[how](log, change, tmp_path_factory.mktemp("tampered"))

    return make
