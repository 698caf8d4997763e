"""Who remembers the log outside of it, over real HTTP: witnesses that cosign, and a command of the operator."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_svc.seal.outside import hook
from audit_svc.seal.outside.holders import HOOK, Holders
from audit_svc.seal.outside.http_witness import Contradicted, NotCosigned, ask
from audit_svc.seal.outside.policy import read_policy
from audit_svc.seal.reader import SealReader
from recording.transparency.cosignature import Cosigner, cosignatures
from recording.transparency.note import split_note
from tests.audit_svc.samples import audit_row
from tests.audit_svc.seal.conftest import Seal
from tests.audit_svc.seal.scripted_witness import ScriptedWitness


class World:
    """A log that a test lets grow, its witness, and what the service does with both."""

    def __init__(self, seal: Seal, record: Callable[..., None], witness: ScriptedWitness) -> None:
        self.seal, self.witness, self._record = seal, witness, record
        self.grow(3)
        with seal.open() as sealer:
            witness.log = sealer.signer.verifier
        self.reader = SealReader(seal.place.open_ledger, seal.place.open_log(), lambda: read_policy(witness.line))

    def grow(self, rows: int) -> int:
        self._record(tool_calls=[audit_row() for _ in range(rows)])
        return self.seal.run()

    async def ask(self) -> int:
        async with httpx2.AsyncClient() as client:
            [named] = read_policy(self.witness.line)
            return await ask(client, named, self.reader)

    def forget(self) -> None:
        """The service knows no more of what the witness has seen."""
        shutil.rmtree(self.seal.folder / "cosigned")


@pytest.fixture
def world(seal: Seal, record: Callable[..., None]) -> Iterator[World]:
    witness = ScriptedWitness("witness.example.com/w1")
    witness.start()
    made = World(seal, record, witness)
    yield made
    made.reader.close()
    witness.stop()


@pytest.mark.long
async def test_a_witness_follows_the_log_and_its_cosignatures_are_kept(world):
    for rows in (1, 2, 300, 5):
        size = world.grow(rows)
        assert await world.ask() == size == world.witness.size
        head = world.reader.head()
        [found] = cosignatures(head.note, [world.witness.cosigner.verifier])
        assert found.seconds == 1_790_000_000
    assert world.witness.answers == [200] * 4


@pytest.mark.long
async def test_a_witness_that_has_seen_more_than_is_known_here_says_so_and_is_asked_again(world):
    size = world.grow(300)
    assert await world.ask() == size
    world.forget()
    assert await world.ask() == size
    world.forget()
    later = world.grow(20)
    assert await world.ask() == later
    assert world.witness.answers == [200, 409, 200, 409, 200]


@pytest.mark.long
async def test_a_fork_is_refused_and_told_whatever_its_size(world):
    world.grow(300)
    await world.ask()
    for name in ("tile", "checkpoint", "index.db", "cosigned"):
        path = world.seal.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    world.witness.root = bytes(32)  # as of another history of the same length
    assert world.seal.run() == world.witness.size
    with pytest.raises(Contradicted, match="written anew"):
        await world.ask()
    world.grow(20)
    with pytest.raises(Contradicted, match="written anew"):
        await world.ask()
    assert world.witness.answers[1:] == [409, 409, 409, 422]
    assert world.reader.head().cosigned == []


async def test_a_log_that_shrank_is_told_by_the_size_that_the_witness_names(world):
    copy = world.seal.folder.with_name("copy")
    shutil.copytree(world.seal.folder, copy)
    size = world.grow(20)
    await world.ask()
    shutil.rmtree(world.seal.folder)
    copy.rename(world.seal.folder)
    with pytest.raises(Contradicted, match=f"has seen {size} leaves, and the log has {size - 20}"):
        await world.ask()


async def test_a_witness_that_is_away_or_does_not_know_the_log_has_not_cosigned(world):
    log, world.witness.log = world.witness.log, None
    with pytest.raises(NotCosigned, match="its operator has to add it"):
        await world.ask()
    world.witness.log = Cosigner.new(log.name).verifier
    with pytest.raises(NotCosigned, match="does not know the log's key"):
        await world.ask()
    world.witness.stop()
    with pytest.raises(NotCosigned, match="cannot be reached"):
        await world.ask()
    world.witness.log = log
    world.witness.start()
    assert await world.ask() == world.witness.size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([200, 201, 204, 302, 400, 403, 404, 409, 422, 429, 500, 503]),
    st.sampled_from(["text/x.tlog.size", "text/plain", "text/x.tlog.size; charset=x"]),
    st.one_of(st.text(max_size=50), st.integers(-5, 2**70).map(str), st.just("x" * 70_000), st.just("— a AAAA\n")),
)
def test_whatever_a_witness_answers_nothing_is_kept_that_it_has_not_signed(world, status, media_type, body):
    async def serve(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, headers={"content-type": media_type}, content=body.encode())

    async def run() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(serve)) as client:
            with pytest.raises((NotCosigned, Contradicted)):
                await ask(client, read_policy(world.witness.line)[0], world.reader)

    asyncio.run(run())
    assert not (world.seal.folder / "cosigned").exists()


async def test_the_signature_of_another_witness_or_of_another_checkpoint_is_not_taken_for_its_own(world):
    other = Cosigner.new(world.witness.cosigner.name)
    for sign in (
        lambda text: other.cosign(text, 1),
        lambda text: world.witness.cosigner.cosign(f"{text}more\n", 1),
    ):
        world.witness.answer = lambda body, sign=sign: (200, {}, sign(split_note(body.partition("\n\n")[2])[0]))
        with pytest.raises(NotCosigned, match="not a cosignature by its key"):
            await world.ask()
    assert world.reader.head().cosigned == []


@asynccontextmanager
async def told(world: World, command: str | None = None) -> AsyncIterator[Holders]:
    holders = Holders(world.reader, lambda: read_policy(world.witness.line), command, 0.02)
    async with holders.running():
        yield holders


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.long
async def test_a_witness_that_goes_and_comes_back_is_told_and_asked_again(world):
    async with told(world) as holders:
        await until(lambda: world.witness.size == 3)
        assert holders.why_troubled() == ""
        world.witness.stop()
        size = world.grow(5)
        await until(lambda: "cannot be reached" in holders.why_troubled())
        found = {family.name: family.samples for family in holders.collect()}
        assert [sample.value for sample in found["onrecord_seal_holder_trouble"]] == [1]
        assert [sample.value for sample in found["onrecord_seal_holder_leaves"]] == [3]
        world.witness.start()
        await until(lambda: world.witness.size == size and not holders.why_troubled())


async def test_a_proxy_that_cannot_be_used_is_told_by_its_variable(world, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")
    async with told(world) as holders:
        await until(lambda: "ALL_PROXY: 'socks5://proxy.example:1080' is not an HTTP proxy" in holders.why_troubled())
        monkeypatch.delenv("ALL_PROXY")
        await until(lambda: world.witness.size == 3 and not holders.why_troubled())


@pytest.mark.long
async def test_a_command_gets_each_new_checkpoint_once_and_one_at_a_time(world, tmp_path):
    out = tmp_path / "checkpoints"
    program = tmp_path / "hook.py"
    program.write_text(
        "import os, sys\n"
        f"handle = os.open({str(out)!r} + '.lock', os.O_CREAT | os.O_EXCL)\n"
        "note = sys.stdin.read()\n"
        f"if os.path.exists({str(tmp_path / 'refuse')!r}): os.unlink({str(out)!r} + '.lock'); sys.exit(7)\n"
        f"open({str(out)!r}, 'a').write(note)\n"
        f"os.unlink({str(out)!r} + '.lock')\n",
        "utf-8",
    )
    command = f"{sys.executable} {program}"
    async with told(world, command) as holders:
        await until(out.exists)
        await until(lambda: (world.seal.folder / "told").exists())
        (tmp_path / "refuse").touch()
        size = world.grow(4)
        await until(lambda: "ended with 7" in holders.why_troubled())
        (tmp_path / "refuse").unlink()
        await until(lambda: not holders.why_troubled() and f"\n{size}\n" in out.read_text("utf-8"))
    async with told(world, command) as holders:
        await until(lambda: HOOK in holders._leaves)
        size = world.grow(1)
        await until(lambda: f"\n{size}\n" in out.read_text("utf-8"))
    sizes = [line for line in out.read_text("utf-8").split("\n") if line.isdecimal()]
    assert len(sizes) == len(set(sizes)) == 3


async def test_a_command_that_hangs_or_is_not_there_is_given_up(monkeypatch):
    monkeypatch.setattr(hook, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(hook.HookFailed, match="has not ended"):
        await hook.run("sh -c 'sleep 600 & wait'", "note")
    with pytest.raises(hook.HookFailed, match="cannot be started"):
        await hook.run("/nowhere/at/all", "note")
    await hook.run("true", "x" * 1_000_000)  # it reads nothing
