"""Another key takes the place of the ledger's log while it runs: every producer goes on, also one that was away."""

import asyncio
import json
from pathlib import Path

import pytest

from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.note import Signer
from recording.transparency.proof import Proof
from tests.e2e.test_restores import Ledger, Producers, is_refused, until
from tests.support.ports import own_port

pytestmark = pytest.mark.long


class Keys:
    """The log's key, as an operator changes it beside the running service."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @property
    def now(self) -> str:
        return (self._ledger.folder / "audit.db.seal" / "key.pub").read_text().strip()

    async def change(self, act: str) -> str:
        said = await asyncio.to_thread(self._ledger.command, "seal", "key", act, "--reason", "a year has passed")
        assert said.returncode == 0, said.stderr
        return said.stdout.strip()


async def test_each_producer_follows_the_key_also_one_that_was_away_for_two_rotations(tmp_path: Path) -> None:
    with own_port() as port:
        ledger = Ledger(tmp_path, port)
        keys = Keys(ledger)
        async with Producers(tmp_path, ledger).running() as producers:
            with ledger.serve() as service:
                await until((ledger.folder / "audit.db.seal" / "checkpoint").exists)
                first = keys.now
                producers.begin("here")
                producers.begin("away")
                producers.begin("named", log_key=first)
                for name in list(producers.records):
                    await producers.record(name, 100)
                await until(lambda: all(producers.view(name).note for name in producers.records))
                await producers.end("away")

                second = await keys.change("rotate")
                assert second == keys.now != first
                again = await asyncio.to_thread(ledger.command, "seal", "key", "rotate", "--reason", "once more")
                assert again.returncode == 1
                assert "refused" in again.stderr
                await until(lambda: "two keys sign already" in service.stderr_text())
                await until(lambda: {producers.view(name).key for name in ("here", "named")} == {second})
                await keys.change("retire")
                await producers.end("named")
                third = await keys.change("rotate")
                await until(lambda: producers.view("here").key == third)
                await keys.change("retire")
                # who was away knows the first key alone, by what it saw or by a setting; nothing signs with it now
                producers.begin("away")
                producers.begin("named", log_key=first)
                for name in list(producers.records):
                    await producers.record(name, 100)
                await until(lambda: {producers.view(name).key for name in producers.records} == {third})
                leaves = max(record.witnessed_leaves for record in producers.records.values())
                await until(lambda: all(record.witnessed_leaves >= leaves for record in producers.records.values()))
                for name, record in producers.records.items():
                    assert record.counters.doubts == 0, producers.view(name)
                    assert not is_refused(record)
                await producers.end("named")
                assert await asyncio.to_thread(service.terminate) == 0
        verified = ledger.command("verify", "--json", "--key", third)
        assert verified.returncode == 0, verified.stdout


async def test_a_key_that_the_log_does_not_lead_to_is_doubted(tmp_path: Path) -> None:
    """Whoever has the disk can make rotations, and sign them with any key but the one that is known."""
    with own_port() as port:
        ledger = Ledger(tmp_path, port)
        seal = ledger.folder / "audit.db.seal"
        async with Producers(tmp_path, ledger).running() as producers:
            with ledger.serve() as service:
                producers.begin("a")
                await producers.record("a", 100)
                await until(lambda: producers.view("a").note)
                await Keys(ledger).change("rotate")
                await Keys(ledger).change("retire")
                await until(lambda: producers.view("a").key == Keys(ledger).now)
                await producers.end("a")
                assert await asyncio.to_thread(service.terminate) == 0
            view = producers.view("a")
            forger = Signer.new(view.key.partition("+")[0])
            said = json.dumps({"kind": "entry", "act": "rotate", "old": view.key, "key": str(forger.verifier)}).encode()
            alone = Checkpoint(forger.name, 1, tree.leaf_hash(said))
            (seal / "rotations" / "9").write_text(str(Proof(said, 0, (), forger.sign(str(alone)))))
            for name, text in (("key", str(forger)), ("key.pub", str(forger.verifier))):
                (seal / name).write_text(f"{text}\n")
            head = (seal / "checkpoint").read_text().partition("\n\n")[0] + "\n"
            (seal / "checkpoint").write_text(forger.sign(head))
            with ledger.serve() as service:
                producers.begin("a")
                await until(producers.records["a"].is_doubted)
                doubt = producers.view("a").doubt
                assert doubt is not None
                assert (doubt.kind, producers.view("a").key) == ("key", view.key)
                await producers.end("a")
                assert await asyncio.to_thread(service.terminate) == 0
    assert json.loads((tmp_path / "a" / "witness" / "view.json").read_text())["named"] == ""
