"""The spool against a model: whatever is done in whatever order, and wherever the process or the machine dies."""

import json
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.spool import Batch, Spool
from recording.spool.gap import GAP_TOOL_NAME
from recording.spool.records import decode_row
from tests.recording.samples import intent, open_spool, tool_call
from tests.recording.spool.crashing_disk import Crash, CrashingDisk
from tests.support.examples import examples

NEVER_MS = 10**9  # the keeper's thread never ticks by itself: the machine does it, so that a failure can be replayed


class SpoolMachine(RuleBasedStateMachine):
    """Rows go in, batches go to a ledger, acks come or do not, and everything dies now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.disk = CrashingDisk()
        self.lives = 0
        self.state_dir = self.home / "0"
        self.next_id = 0
        self.accepted: list[int] = []
        """Calls whose row was taken, in order."""
        self.doubtful: set[int] = set()
        """Calls whose row was being taken when the process died, or which a power cut may have taken back."""
        self.durable = 0
        """How many of `accepted` were taken before the last sync."""
        self.open: set[int] = set()
        self.intents: set[int] = set()
        self.lost_intents: set[int] = set()
        """Intents that need not be on the disk any more."""
        self.durable_intents: set[int] = set()
        self.dropped: set[int] = set()
        """Calls that a full spool did not take."""
        self.refused: set[int] = set()
        """Calls whose intents a full spool did not take."""
        self.power_was_lost = False
        self.ledger: dict[int, audit_pb2.AuditRow] = {}
        self.gaps: dict[str, int] = {}
        self.given: set[int] = set()
        """Numbers of the rows that were read since the last rewind or restart."""
        self.in_flight: deque[Batch] = deque()
        self.spool = self.open_spool()

    def open_spool(self) -> Spool:
        return open_spool(self.state_dir, max_bytes=2**20, sync_interval_ms=NEVER_MS)

    def call(self) -> int:
        self.next_id += 1
        return self.next_id

    def surviving(self, work: Callable[[], object]) -> bool:
        """Does work; when the process dies of it, starts another and says False."""
        try:
            work()
        except Crash:
            self.restart(power_cut=None)
            return False
        return True

    def restart(self, power_cut: int | None) -> None:
        self.disk.disarm()
        self.lives += 1
        left = self.home / str(self.lives)
        self.disk.copy(self.state_dir, left)
        self.spool.close()
        if power_cut is not None:
            self.power_was_lost = True
            self.disk.lose_power(left, power_cut)
            self.doubtful |= set(self.accepted[self.durable :])
            self.lost_intents |= self.intents - self.durable_intents
        self.lost_intents |= self.doubtful
        self.open.clear()
        shutil.rmtree(self.state_dir)
        self.state_dir = left
        self.in_flight.clear()
        self.given.clear()
        self.spool = self.open_spool()

    @rule(count=st.integers(1, 5), size=st.sampled_from([10, 20_000, 150_000]))
    def append(self, count: int, size: int) -> None:
        for _ in range(count):
            number = self.call()
            taken: list[bool] = []
            row = tool_call(number, args_summary="x" * size)
            if not self.surviving(lambda row=row, taken=taken: taken.append(self.spool.append(row))):  # type: ignore[misc]
                self.doubtful.add(number)
                return
            if taken[0]:
                self.accepted.append(number)
            else:
                self.dropped.add(number)

    @rule(size=st.sampled_from([10, 20_000, 150_000]))
    def intend(self, size: int) -> None:
        number = self.call()
        taken: list[bool] = []
        if not self.surviving(lambda: taken.append(self.spool.append_intent(intent(number)))):
            self.doubtful.add(number)
        elif taken[0]:
            self.open.add(number)
            self.intents.add(number)
        else:
            self.refused.add(number)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.open)))
        if self.surviving(lambda: self.spool.append(tool_call(number))):
            self.open.discard(number)
            self.accepted.append(number)
        else:
            self.doubtful.add(number)

    @rule(rows=st.integers(1, 7))
    def deliver(self, rows: int) -> None:
        """The ledger commits a batch. Whether the ack gets through is another matter."""
        batch: list[Batch | None] = []
        if self.surviving(lambda: batch.append(self.spool.read(rows, 2**20))) and batch[0] is not None:
            self.store(batch[0])

    def store(self, batch: Batch) -> None:
        if not batch.payloads:
            return
        self.in_flight.append(batch)
        assert batch.first <= batch.numbers[0]
        assert batch.numbers[-1] <= batch.last
        for number, payload in zip(batch.numbers, batch.payloads, strict=True):
            assert number not in self.given, "given twice though nobody asked for it again"
            self.given.add(number)
            row = decode_row(payload)
            assert isinstance(row, audit_pb2.AuditRow)
            if row.tool_name == GAP_TOOL_NAME:
                self.gaps.setdefault(row.id, json.loads(row.args_summary)["tool_calls"])
                continue
            self.ledger.setdefault(int(row.id.removeprefix("call-")), row)

    @precondition(lambda self: self.in_flight)
    @rule()
    def ack(self) -> None:
        batch = self.in_flight.popleft()
        self.surviving(lambda: self.spool.ack(batch))

    @rule()
    def reconnect(self) -> None:
        self.spool.rewind()
        self.in_flight.clear()
        self.given.clear()

    @rule()
    def tick(self) -> None:
        """The keeper's work: sync and trim."""
        if self.surviving(self.spool._keep):
            self.durable, self.durable_intents = len(self.accepted), set(self.intents)

    @rule(calls=st.integers(0, 12), part=st.floats(0, 1))
    def doom(self, calls: int, part: float) -> None:
        self.disk.arm(calls, part)

    @rule()
    def kill(self) -> None:
        self.restart(power_cut=None)

    @rule(seed=st.integers(0, 2**16))
    def lose_power(self, seed: int) -> None:
        self.restart(power_cut=seed)

    @rule()
    def close_and_open(self) -> None:
        self.disk.disarm()
        self.spool.close()
        self.durable, self.durable_intents = len(self.accepted), set(self.intents)
        self.lost_intents |= self.doubtful
        self.open.clear()
        self.in_flight.clear()
        self.given.clear()
        self.spool = self.open_spool()

    def teardown(self) -> None:
        self.disk.disarm()
        try:
            self.reconnect()
            self.restart(power_cut=None)
            for _ in range(3):  # what waits for room is written by a tick that follows the acks, and trims, of another
                while (batch := self.spool.read(5, 2**20)) is not None:
                    self.store(batch)
                    if batch.payloads:
                        self.spool.ack(batch)
                self.spool._keep()
            self.check()
        finally:
            self.disk.restore()
            self.spool.close()
            shutil.rmtree(self.home)

    def check(self) -> None:
        certain = [number for number in self.accepted if number not in self.doubtful]
        lost = [number for number in certain if number not in self.ledger]
        assert not lost, f"taken and lost: {lost}"
        for number in certain:
            assert self.ledger[number].outcome == common_pb2.OUTCOME_SUCCEEDED, f"call {number} was taken whole"
        order = [number for number in self.ledger if number in set(certain)]
        assert order == certain, "not in the order in which they were taken"
        invented = set(self.ledger) - set(range(1, self.next_id + 1))
        assert not invented
        silent = set(range(1, self.next_id + 1)) - set(self.ledger) - self.lost_intents - self.doubtful
        silent -= self.dropped | self.refused
        assert not silent, f"calls that left no trace: {silent}"
        if not self.power_was_lost:
            told = sum(self.gaps.values())
            assert len(self.dropped) <= told <= len(self.dropped | self.doubtful), "drops and gap rows do not agree"


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(
    max_examples=examples(40),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
