"""The key of the seal is changed while two replicas run, each of which has a file of its own with it."""

import asyncio
import itertools
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.processes import run_command
from recording.delivery.connection import Target
from recording.record import Record, open_record
from recording.witness.view import ViewFile
from tests.faults.replicas.replica import Replica
from tests.faults.replicas.world import ReplicasWorld
from tests.recording.samples import tool_call

pytestmark = [pytest.mark.postgres, pytest.mark.long]

PATIENCE_SECONDS = 60


async def until(holds: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.1)


def detail_of(replica: Replica) -> str:
    """What health says of a replica."""
    said = run_command("audit_svc", {}, "health", "--target", replica.address)
    return said.stdout + said.stderr


class Keys:
    """The files of two replicas, and the commands that change the key."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self.files = {name: folder / name / "key" for name in ("replica-1", "replica-2")}

    def command(self, replica: Replica, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of audit-svc where a replica runs."""
        variables = {"AUDIT_DB": self._url, "AUDIT_SEAL_KEY_FILE": str(self.files[replica.name])}
        return run_command("audit_svc", variables, *words)

    def change(self, replica: Replica, act: str) -> str:
        said = self.command(replica, "seal", "key", act, "--reason", "a year has passed")
        assert said.returncode == 0, said.stderr
        return said.stdout.strip()

    def hand_over(self, source: Replica, target: Replica) -> None:
        """What an operator does after a change: the files of one machine to the other."""
        folder = self.files[target.name].parent
        for file in folder.iterdir():
            file.unlink()
        for file in self.files[source.name].parent.iterdir():
            shutil.copy(file, folder)


def restart(replica: Replica, key_file: Path) -> None:
    replica.stop()
    replica._key_file = key_file
    replica.start()


async def test_a_key_is_changed_and_a_replica_with_an_older_one_says_so_and_signs_nothing(tmp_path: Path) -> None:
    with ReplicasWorld(random.Random(0)) as world:
        world.start()
        writer, standby = world.writer(), world.standby()
        keys = Keys(world.server.url(world._database), tmp_path)
        await until((world.folder / "seal-key").exists, "no key is made")
        for replica in (standby, writer):
            keys.files[replica.name].parent.mkdir()
            shutil.copy(world.folder / "seal-key", keys.files[replica.name])
        restart(standby, keys.files[standby.name])
        restart(writer, keys.files[writer.name])
        writer, standby = world.writer(), world.standby()
        record = open_record(tmp_path / "producer", Target(world.proxy.address), mode="strict", witness_seconds=0.2)
        record.start()
        try:
            await change_keys(keys, writer, standby, record, tmp_path / "producer" / "witness")
        finally:
            await record.aclose()


async def change_keys(keys: Keys, writer: Replica, standby: Replica, record: Record, witness: Path) -> None:
    numbers = itertools.count()

    def send() -> None:
        for _ in range(10):
            record.logger.record(tool_call(next(numbers)))

    async def follows(key: str) -> None:
        view = ViewFile(witness)
        await until(lambda: view.load().key == key and record.spool.depth == 0, "the producer does not follow the key")

    async def seals() -> None:
        before = record.witnessed_leaves
        send()
        await until(lambda: record.witnessed_leaves >= before + 10, "nothing is sealed")

    async def says_why(replica: Replica, key: str) -> None:
        said = f"is not the log's newest key, which is {key}"
        await until(lambda: said in replica.log, "a replica says nothing of its key")
        assert said in await asyncio.to_thread(detail_of, replica)

    async def goes_on(replica: Replica) -> None:
        await until(lambda: "seal.goes_on" in replica.log.rpartition("seal.trouble")[2], "it goes on to say so")
        assert "seal:" not in await asyncio.to_thread(detail_of, replica)

    await seals()
    second = await asyncio.to_thread(keys.change, writer, "rotate")
    await follows(second)
    await says_why(standby, second)

    # it writes when it has to, and signs nothing until it has the key
    await asyncio.to_thread(writer.stop)
    await until(lambda: standby.serves("writer"), "the standby does not write")
    send()
    await until(lambda: record.spool.depth == 0, "rows are not acknowledged")
    status = await asyncio.to_thread(keys.command, standby, "seal", "status", "--json")
    assert f'"key": "{second}"' in status.stdout
    assert '"waiting": 0' not in status.stdout
    refused = await asyncio.to_thread(keys.command, standby, "seal", "run")
    assert (refused.returncode, "is not the log's newest key" in refused.stderr) == (1, True)
    await asyncio.to_thread(keys.hand_over, writer, standby)
    await seals()
    await goes_on(standby)

    # the other one comes back, and the key is changed again where the writer runs
    await asyncio.to_thread(writer.start)
    writer, standby = standby, writer
    assert "signed by" in await asyncio.to_thread(keys.change, writer, "retire")
    third = await asyncio.to_thread(keys.change, writer, "rotate")
    await asyncio.to_thread(keys.change, writer, "retire")
    await follows(third)
    await says_why(standby, third)
    await asyncio.to_thread(keys.hand_over, writer, standby)
    await goes_on(standby)
    await asyncio.to_thread(writer.stop)
    await seals()
    assert record.counters.doubts == 0
    verified = await asyncio.to_thread(keys.command, standby, "verify", "--key", third)
    assert verified.returncode == 0, verified.stdout
