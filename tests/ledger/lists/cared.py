"""How rows of the ledger of lists are pruned, held and erased."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

from onrecord.audit.v1 import administration_pb2, audit_pb2

from audit_svc.errors import AlreadyExists, AlreadyRunning, AmbiguousId, Held, NotFound, Overloaded, Unsupported
from audit_svc.ledger.clock import wall_ms
from audit_svc.ledger.erased import ERASED
from audit_svc.ledger.erasing import ErasedCounts, ErasingProgress, Erasure
from audit_svc.ledger.holds import MAX_HOLDS, Act, Scope
from audit_svc.ledger.pruning import Progress, PrunedCounts
from tests.audit_svc.samples import row_of
from tests.ledger.lists.rows import Key, Rows, began, holds, texts


class Cared(Rows):
    """Prunes, holds and erases."""

    async def prune(self, before_ms: int, by: str, *, confirm_clock: bool = False) -> AsyncGenerator[Progress, None]:
        if self._is_pruning:
            raise AlreadyRunning("a prune is under way already: wait for its end")
        if confirm_clock:
            self._clock.confirm()
            await self._log_care(by)
        self._clock.refuse_jump()
        self._is_pruning = True
        try:
            self._pruned_before = max(before_ms, self._pruned_before)
            yield Progress(before_ms, PrunedCounts(), done=False)
            progress = await self.count_prunable(before_ms)
            self._calls, self._requests, self._sessions = self._kept(before_ms)
            self._queries = [row for row in self._queries if row.created_at_ms >= before_ms]
            yield progress
        finally:
            self._is_pruning = False

    async def reset_mark(self, before_ms: int, by: str) -> Progress:
        self._pruned_before = min(before_ms, self._pruned_before)
        await self._log_care(by)
        return Progress(self._pruned_before, PrunedCounts(), done=True)

    async def _log_care(self, by: str) -> None:
        row = administration_pb2.QueryRow(caller=by, method="Prune", filters="{}", status="OK", created_at_ms=wall_ms())
        await self.log_queries([row])

    async def count_prunable(self, before_ms: int) -> Progress:
        self._kept_by_holds = 0
        calls, costs, sessions = self._kept(before_ms)
        held = self._kept_by_holds
        old = [row_of(call) for row_id, call in self._calls.items() if row_id not in calls]
        spent = [row_of(cost) for row_id, cost in self._requests.items() if row_id not in costs]
        summed = ("input_tokens", "output_tokens", "cost_micros")
        sums = {name: sum(getattr(row, name) for row in spent) for name in summed}
        failed = sum(row.HasField("error") for row in old)
        removed = PrunedCounts(len(old), failed, len(spent), sessions=len(self._sessions) - len(sessions), **sums)
        return Progress(before_ms, removed, done=True, held=held)

    def _kept(self, before_ms: int) -> tuple[dict[Key, Any], dict[Key, Any], dict[Key, Any]]:
        tables: list[dict[Key, Any]] = [self._calls, self._requests]
        calls, costs = (
            {
                row_id: record
                for row_id, record in table.items()
                if self._is_kept(record, row_id, row_of(record).created_at_ms, before_ms)
            }
            for table in tables
        )
        used = {
            (row_of(record).session_id, record.receipt.recorded_by) for record in (*calls.values(), *costs.values())
        }
        sessions = {
            row_id: record
            for row_id, record in self._sessions.items()
            if row_id in used
            or self._is_kept(record, row_id, max(record.session.created_at_ms, record.session.updated_at_ms), before_ms)
        }
        return calls, costs, sessions

    def _is_kept(self, record: Any, key: Key, time_ms: int, before_ms: int) -> bool:
        """Whether a prune leaves a row; counts those that only a hold keeps."""
        if max(time_ms, self._suspects.get(key, 0)) >= before_ms:
            return True
        self._kept_by_holds += bool(self._held(record))
        return bool(self._held(record))

    async def act_on_hold(self, act: Act) -> administration_pb2.Hold:
        found = next((hold for hold in self._holds if hold.name == act.name and not hold.lifted_by), None)
        if act.filter is None:
            if found is None:
                raise NotFound("no hold of that name is in place", "hold", act.name)
            found.lifted_by, found.lifted_at_ms, found.lift_reason = act.by, wall_ms(), act.reason
            return found
        if found:
            raise AlreadyExists("a hold of that name is in place", "hold", act.name)
        if sum(not hold.lifted_by for hold in self._holds) >= MAX_HOLDS:
            raise Overloaded(f"{MAX_HOLDS} holds are in place, and no more may be: lift one first")
        at = wall_ms()
        hold = administration_pb2.Hold(
            name=act.name, filter=act.filter, placed_by=act.by, placed_at_ms=at, reason=act.reason
        )
        self._holds.append(hold)
        return hold

    async def list_holds(self, *, with_lifted: bool) -> list[administration_pb2.Hold]:
        return [hold for hold in self._holds if with_lifted or not hold.lifted_by]

    def _held(self, record: Any) -> str:
        """The name of a hold in place that holds a row; empty where none does."""
        row = row_of(record)
        for hold in self._holds:
            scope = Scope.read(hold.filter)
            is_met = {
                audit_pb2.AuditRow: True,
                audit_pb2.CostRow: scope.is_of_requests,
                audit_pb2.SessionRow: scope.is_of_sessions,
                audit_pb2.ControlRow: scope.is_of_controls,
            }[type(row)]
            wanted, labels = scope.filter, self._labels(record)
            if isinstance(row, audit_pb2.SessionRow):
                equal = {"id" if name == "session_id" else name: value for name, value in wanted.equal.items()}
                wanted, labels = replace(wanted, equal=equal), dict(row.labels)
            glob = not scope.tool_glob or (is_met and fnmatchcase(getattr(row, "tool_name", ""), scope.tool_glob))
            if not hold.lifted_by and is_met and glob and holds(wanted, record, labels):
                return hold.name
        return ""

    async def erase(self, wanted: Erasure) -> AsyncGenerator[ErasingProgress, None]:
        progress = await self.count_erasable(wanted)
        for kind, key, record in self._erasable(wanted):
            row = row_of(record)
            for of, name in texts(row):
                setattr(of, name, ERASED)
            record.receipt.erased = True
            self._erased.add((kind, key))
        yield progress

    async def count_erasable(self, wanted: Erasure) -> ErasingProgress:
        counts = ErasedCounts()
        for kind, *_ in self._erasable(wanted):
            setattr(counts, kind, getattr(counts, kind) + 1)
        return ErasingProgress(counts, done=True)

    def _erasable(self, wanted: Erasure) -> list[tuple[str, Key, Any]]:
        tables: dict[str, Mapping[Key, Any]] = {
            "tool_calls": self._calls,
            "model_requests": self._requests,
            "controls": self._controls,
        }
        found = [
            (kind, key, record)
            for kind, table in tables.items()
            for key, record in table.items()
            if wanted.recorded_by in (None, key[1]) and self._is_meant(wanted, kind, key, record)
        ]
        if wanted.before_ms:
            found = [one for one in found if not self._held(one[2])]
        for name in filter(None, (self._held(record) for _, _, record in found if texts(row_of(record)))):
            raise Held(name)
        names = {key[1] for _, key, _ in found}
        if wanted.session_id:
            names |= {by for id_, by in self._sessions if id_ == wanted.session_id and wanted.recorded_by in (None, by)}
        if wanted.row_id or wanted.session_id:
            what = "row" if wanted.row_id else "session"
            if not names:
                raise NotFound(f"the ledger has no {what} with this id", what, wanted.row_id or wanted.session_id)
            if len(names) > 1:
                raise AmbiguousId("several callers recorded it", what, wanted.row_id, sorted(names))
        return [one for one in found if one[:2] not in self._erased and texts(row_of(one[2]))]

    def _is_meant(self, wanted: Erasure, kind: str, key: Key, record: Any) -> bool:
        if wanted.row_id:
            return key[0] == wanted.row_id
        if wanted.before_ms:
            return max(began(row_of(record)), self._suspects.get(key, 0)) < wanted.before_ms
        if kind == "controls":
            return False
        if wanted.session_id:
            return bool(row_of(record).session_id == wanted.session_id)
        labels = self._labels(record)
        return bool(wanted.labels) and all(labels.get(name) == value for name, value in wanted.labels)

    async def unfinished_prune(self) -> int | None:
        return None

    async def back_up(self) -> tuple[BinaryIO, int]:
        raise Unsupported("a ledger of lists has no file: there is nothing to copy")
