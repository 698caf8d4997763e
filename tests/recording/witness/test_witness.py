"""A producer tells a ledger that is not what it was: once, and until somebody accepts it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2, proof_pb2

from recording.logger import AuditRefused
from recording.record import Record, open_record
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Witness, cosignatures
from recording.transparency.note import Signer
from recording.transparency.proof import Proof
from recording.transparency.tree import EMPTY_ROOT, leaf_hash
from recording.witness.checks import Contradiction, read_head
from recording.witness.doubts import Doubts
from recording.witness.view import Told, View, ViewFile
from tests.recording.fake_audit import serving
from tests.recording.samples import intent, tool_call
from tests.recording.witness.fake_log import ORIGIN, FakeLog, leaf_of

ROWS = 12
DOUBTED, ACCEPTED = audit_pb2.CONTROL_KIND_LEDGER_DOUBTED, audit_pb2.CONTROL_KIND_LEDGER_ACCEPTED


class World:
    """A producer and its ledger."""

    def __init__(self, ledger: FakeLog, record: Record, state_dir: Path) -> None:
        self.ledger, self.record, self.state_dir = ledger, record, state_dir

    @property
    def told(self) -> list[audit_pb2.ControlKind.ValueType]:
        """The control rows in the ledger's hands, each once."""
        return [row.kind for row in {row.id: row for row in self.ledger.controls}.values()]

    async def looks(self, more: int = 2) -> None:
        """Waits for so many looks from now on."""
        seen = self.ledger.looks
        await until(lambda: self.ledger.looks >= seen + more)

    def is_refused(self) -> bool:
        try:
            self.record.logger.intend(intent(10**6))
        except AuditRefused:
            return True
        return False


@asynccontextmanager
async def world(tmp_path: Path, ledger: FakeLog, *, rows: int = ROWS, **options: object) -> AsyncIterator[World]:
    """A producer of mode strict, after its rows are acknowledged and it has seen the log."""
    state_dir = tmp_path / "state"
    async with serving(ledger, more=[ledger.proof_service()]) as target:
        record = open_record(state_dir, target, mode="strict", witness_seconds=0.02, **options)  # type: ignore[arg-type]
        first = len(ledger.ledger)
        for number in range(first, first + rows):
            record.logger.record(tool_call(number))
        record.start()
        try:
            await ledger.until_stored(first + rows)
            here = World(ledger, record, state_dir)
            if not ledger.no_seal:  # the whole log is seen, so that what goes back contradicts it
                file = ViewFile(state_dir / "witness")
                await until(lambda: f"\n{ledger.size}\n" in file.load().note)
            await here.looks()
            yield here
        finally:
            await record.aclose()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_ledger_that_only_grows_is_not_doubted_and_its_checkpoints_are_cosigned(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        for number in range(100, 140):
            here.record.logger.record(tool_call(number))
            await asyncio.sleep(0.005)
        await here.looks(5)
        assert not here.record.is_doubted()
        assert here.told == []
        assert not here.is_refused()
        await until(lambda: here.record.witnessed_leaves == ledger.size)
        key = Witness.parse((here.state_dir / "witness/key.pub").read_text())
        await until(lambda: ledger.cosigned and ledger.cosigned[-1].startswith(f"{ORIGIN}\n{ledger.size}\n"))
        for note in ledger.cosigned:
            assert [found.witness.name for found in cosignatures(note, [key])] == [key.name]


def shrink(ledger: FakeLog) -> None:
    ledger.leaves = ledger.leaves[:5]


def restore(ledger: FakeLog) -> None:
    """As a restore leaves it, of the seal too; a producer that looks at that moment would tell both."""
    shrink(ledger)
    ledger.forget(*[id_ for id_ in ledger.ledger if int(id_.removeprefix("call-")) >= 5])


def fork(ledger: FakeLog) -> None:
    ledger.leaves = [*ledger.leaves[:-3], b"1", b"2", b"3"]


def fork_and_grow(ledger: FakeLog) -> None:
    ledger.leaves = [b"another", *ledger.leaves]


@pytest.mark.long
@pytest.mark.parametrize("change", [shrink, fork, fork_and_grow])
async def test_a_log_that_is_another_is_told_once_and_until_it_is_accepted(
    tmp_path: Path, change: Callable[[FakeLog], None]
) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        before = ledger.note()
        change(ledger)
        await until(here.record.is_doubted)
        assert here.is_refused()
        await here.looks(4)
        assert here.told == [DOUBTED]
        assert here.record.counters.doubts == 1
        (evidence,) = (here.state_dir / "witness").glob("evidence-*.json")
        kept = json.loads(evidence.read_text())
        assert kept["seen"].partition("\n\n")[0] == before.partition("\n\n")[0]
        assert kept["shown"] != kept["seen"]
        assert "not what it was" in here.record.trouble()
        ledger.accept("the disk died")
        await until(lambda: not here.record.is_doubted())
        assert not here.is_refused()
        await until(lambda: here.told == [DOUBTED, ACCEPTED])
        (accepted,) = {row.reason for row in ledger.controls if row.kind == ACCEPTED}
        assert accepted == "accepted by ada: the disk died"
        await here.looks(4)
        assert here.told == [DOUBTED, ACCEPTED]


async def test_whoever_accepts_before_anybody_looks_silences_nobody(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger):
        pass
    restore(ledger)
    ledger.accept("nothing to see here")
    async with world(tmp_path, ledger, rows=1) as here:
        await until(lambda: here.told == [DOUBTED, ACCEPTED])
        assert not here.record.is_doubted()
        assert here.record.counters.doubts == 1
        assert len(ledger.ledger) >= ROWS  # what it forgot is back


async def test_an_acceptance_of_before_is_none_of_what_comes_after(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        ledger.accept("another time")
        file = ViewFile(here.state_dir / "witness")
        await until(lambda: file.load().restores)
        assert here.told == []
        ledger.leaves = [*ledger.leaves[:3], *ledger.leaves[-1:]]
        await until(here.record.is_doubted)
        await here.looks(3)
        assert here.record.is_doubted()


async def test_rows_that_the_ledger_lost_are_told_and_come_back(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        lost = [f"call-{number}" for number in range(4, ROWS)]
        ledger.forget(*lost)
        await until(here.record.is_doubted)
        await until(lambda: len(ledger.ledger) == ROWS)
        await until(lambda: here.record.counters.returned == len(lost))  # counted with the ack
        await until(lambda: here.told == [DOUBTED])
        producer = here.record.spool.id
        assert all(request.range.producer_id == producer for request in ledger.requests)


async def test_a_row_that_the_ledger_does_not_take_again_was_pruned_or_refused(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        ledger.forget_only_in_log = True  # it says NOT_FOUND, and stores nothing
        await here.looks(5)
        assert not here.record.is_doubted()
        assert here.told == []


async def test_a_row_that_is_another_is_told_once_also_after_it_was_accepted(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        last = ledger.ledger[f"call-{ROWS - 1}"]
        assert isinstance(last, audit_pb2.AuditRow)
        changed = audit_pb2.AuditRow()
        changed.CopyFrom(last)
        changed.tool_name = "webfetch"
        await ledger.store(audit_pb2.RecordRequest(tool_calls=[tool_call(99, tool_name="x")]), None)  # type: ignore[arg-type]
        ledger.ledger[last.id] = changed
        ledger.leaves.append(leaf_of(changed))
        await until(here.record.is_doubted)
        assert "another tool_name" in here.record.detail()
        ledger.accept("somebody mistyped")
        await until(lambda: not here.record.is_doubted())
        await here.looks(5)
        await until(lambda: here.told == [DOUBTED, ACCEPTED])


async def test_another_key_is_told_until_the_known_one_signs_again_or_a_setting_names_it(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        known, ledger.signer = ledger.signer, Signer.new(ORIGIN)
        await until(here.record.is_doubted)
        ledger.accept("by whoever has another key")
        await here.looks(4)
        assert here.record.is_doubted()
        other, ledger.signer = ledger.signer, known
        await until(lambda: not here.record.is_doubted())
        ledger.signer = other
        await until(here.record.is_doubted)
        await until(lambda: here.told == [DOUBTED, ACCEPTED, DOUBTED])
    async with world(tmp_path, ledger, rows=1, log_key=str(other.verifier)) as here:
        await until(lambda: not here.record.is_doubted())
        await until(lambda: here.told == [DOUBTED, ACCEPTED, DOUBTED, ACCEPTED])


@pytest.mark.parametrize("reason", ["UNSUPPORTED", "NOT_SEALED"])
async def test_a_seal_that_is_gone_is_told_and_one_that_never_was_is_not(tmp_path: Path, reason: str) -> None:
    ledger = FakeLog()
    ledger.no_seal = reason
    async with world(tmp_path, ledger) as here:
        await here.looks(3)
        assert not here.record.is_doubted()
        ledger.no_seal = ""
        await until(lambda: here.record.witnessed_leaves)
        ledger.no_seal = reason
        await until(here.record.is_doubted)
        await here.looks(3)
        assert here.record.counters.doubts == 1
        ledger.no_seal = ""
        await until(lambda: not here.record.is_doubted())


async def test_a_door_goes_on_and_says_what_is_doubted(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger, refuse_doubted=False) as here:
        fork(ledger)
        await until(here.record.is_doubted)
        assert not here.is_refused()
        assert here.record.trouble() == ""
        assert "does not begin with" in here.record.detail()


async def test_a_seal_that_goes_and_comes_back_accepts_nothing(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        shrink(ledger)
        await until(here.record.is_doubted)
        ledger.no_seal = "UNSUPPORTED"
        await here.looks(2)
        ledger.no_seal = ""
        await here.looks(3)
        assert here.record.is_doubted()
        assert here.told == [DOUBTED]


async def test_a_reason_that_is_no_reason_about_the_seal_is_passing(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as here:
        ledger.no_seal = "STORE_UNAVAILABLE"
        await here.looks(3)
        assert not here.record.is_doubted()


async def test_what_a_process_saw_and_did_not_tell_is_told_by_the_next_under_the_same_id(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger):
        pass
    file = ViewFile(tmp_path / "state/witness")
    view = file.load()
    view.doubt = Told("log", "its log went back from 9 leaves to 5")
    file.save(view)  # and the process dies
    async with world(tmp_path, ledger, rows=1) as here:
        await until(lambda: here.told == [DOUBTED])
        assert {row.id for row in ledger.controls} == {view.doubt.id}
        assert here.record.is_doubted()


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger):
        pass
    restore(ledger)
    async with world(tmp_path, ledger, rows=1) as here:
        await until(here.record.is_doubted)
    async with world(tmp_path, ledger, rows=1) as here:
        assert here.is_refused()
        await here.looks(3)
        assert here.told == [DOUBTED]


async def test_one_process_of_a_state_directory_watches_and_all_refuse(tmp_path: Path) -> None:
    ledger = FakeLog()
    async with world(tmp_path, ledger) as first, world(tmp_path, ledger, rows=1) as second:
        shrink(ledger)
        await until(first.record.is_doubted)
        assert second.is_refused()
        assert first.record.counters.doubts + second.record.counters.doubts == 1
        await until(lambda: first.told == [DOUBTED])


async def test_a_view_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "witness"
    file = ViewFile(folder)
    for damage in (b"", b"{}x", b"[]", b'{"doubt": 1, "accepted": null}', b'{"other": 1}'):
        (folder / "view.json").write_bytes(damage)
        assert file.load() == View()
    assert len(list(folder.glob("damaged-*.json"))) == 5


def test_a_doubt_is_a_file_that_others_read(tmp_path: Path) -> None:
    (tmp_path / "witness").mkdir()
    mine, others = Doubts(tmp_path), Doubts(tmp_path)
    assert not others.is_doubted()
    mine.set("its log went back")
    assert (others.is_doubted(), others.why()) == (True, "its log went back")
    mine.set("")
    assert (others.is_doubted(), others.why()) == (False, "")


@pytest.mark.parametrize("forged", [False, True])
def test_a_known_key_leads_to_those_after_it_by_what_it_signed_itself(forged: bool) -> None:
    first, second, third, stranger = (Signer.new(ORIGIN) for _ in range(4))
    rotations = []
    for old, new in ((first, second), (second, third)):
        said = {"kind": "entry", "act": "rotate", "old": str(old.verifier), "key": str(new.verifier)}
        leaf = json.dumps(said).encode()
        signer = stranger if forged else old
        rotations.append(str(Proof(leaf, 0, (), signer.sign(str(Checkpoint(ORIGIN, 1, leaf_hash(leaf)))))))
    note = third.sign(str(Checkpoint(ORIGIN, 0, EMPTY_ROOT)))
    answer = proof_pb2.GetCheckpointResponse(note=note, verifier_key=str(third.verifier), rotations=["", *rotations])
    for known in (first, second, third):
        view = View(key=str(known.verifier))
        if forged and known is not third:
            with pytest.raises(Contradiction, match="not signed with the key that is known"):
                read_head(view, answer)
        else:
            assert read_head(view, answer)[0] == third.verifier
