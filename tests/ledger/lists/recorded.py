"""How the ledger of lists takes rows."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import StoreClosed
from audit_svc.ledger.batch import Batch, in_order
from audit_svc.ledger.clock import MAX_AHEAD_MS
from audit_svc.ledger.columns import MAX_TIME_MS, Problem
from audit_svc.ledger.erased import ERASED
from audit_svc.ledger.records import control_record, model_request_record, session_record, tool_call_record
from audit_svc.ledger.tables import COST_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.ledger.valid_rows import ValidRows
from tests.audit_svc.samples import row_of
from tests.ledger.lists.rows import Key, Rows, texts

Rejections = list[audit_pb2.Rejection]


class Recorded(Rows):
    """Takes batches."""

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        if self._is_closed:
            raise StoreClosed("the ledger is shutting down")
        refused = list(batch.rejections)
        producer, first, last = batch.numbers or ("", 0, 0)
        numbers = set(range(first, last + 1)) if batch.numbers else set[int]()
        covered = self._covered.get((producer, batch.recorded_by), self._covered.get((producer, ""), set()))
        self._is_new = bool(numbers) and not covered & numbers
        self._received_ms = batch.received_ms
        stored = self._add_sessions(batch, refused)
        by = batch.recorded_by
        counted = len(self._calls), len(self._requests)
        stored += self._add(self._calls, batch.tool_calls.with_all(TOOL_CALL_COLUMNS), tool_call_record, by, refused)
        stored += self._add(
            self._requests, batch.model_requests.with_all(COST_COLUMNS), model_request_record, by, refused
        )
        self._sum_sessions([*self._calls.values()][counted[0] :] + [*self._requests.values()][counted[1] :], by)
        stored += self._add_controls(batch, refused)
        if numbers:
            self._covered[producer, by] = covered | numbers
        for stream in batch.session_numbers:
            self._covered.setdefault((stream.producer_id, by), set()).update(range(stream.first, stream.last + 1))
        for entry in refused:
            code = audit_pb2.RejectionCode.Name(entry.code).removeprefix("REJECTION_CODE_").lower()
            self._refusals[producer, code, by].append((first, last))
        response = asyncio.get_running_loop().create_future()
        response.set_result(
            audit_pb2.RecordResponse(
                range=audit_pb2.SequenceRange(**batch.numbers._asdict()) if batch.numbers else None,
                stored=stored,
                duplicates=len(batch) - stored - (len(refused) - len(batch.rejections)),
                rejections=in_order(refused),
            )
        )
        return response

    def _stands_elsewhere(self, table: Mapping[Key, Any], row: Any, by: str) -> bool:
        """Whether the row stands already, from before a list of callers was turned on or off."""
        names = {name for _, name in table}
        others = {""} if by else names - {""}
        there = [table[row.id, name] for name in others if (row.id, name) in table]
        return any(_is_same(row_of(record), row, record.receipt.erased) for record in there)

    def _add(
        self, table: dict[Key, Any], rows: ValidRows, read: Callable[[Any, Any], Any], by: str, refused: Rejections
    ) -> int:
        before = len(table)
        for place, values in zip(rows.positions, rows.rows(), strict=True):
            row = row_of(read((0, "", 0), values))
            key = row.id, by
            if row.created_at_ms < self._pruned_before and not self._is_new and key not in self._suspects:
                refused.append(rows.rejection(place, row.id, _too_old("created_at_ms")))
            elif self._stands_elsewhere(table, row, by):
                continue
            elif key not in table:
                table[key] = read(self._receipt(by), values)
                if row.created_at_ms < self._pruned_before or row.created_at_ms > self._received_ms + MAX_AHEAD_MS:
                    self._suspects[key] = self._received_ms
            elif not _is_same(row_of(table[key]), row, table[key].receipt.erased):
                refused.append(rows.rejection(place, row.id, _conflict("the ledger has another row with this id")))
        return len(table) - before

    def _add_controls(self, batch: Batch, refused: Rejections) -> int:
        before = len(self._controls)
        for place, values in zip(batch.controls.positions, batch.controls.rows(), strict=True):
            row = control_record((0, "", 0), values).control
            key = row.id, batch.recorded_by
            if self._stands_elsewhere(self._controls, row, batch.recorded_by):
                continue
            if key not in self._controls:
                self._controls[key] = control_record(self._receipt(batch.recorded_by), values)
            elif not _is_same(self._controls[key].control, row, self._controls[key].receipt.erased):
                refused.append(batch.controls.rejection(place, row.id, _conflict("the ledger has another row")))
        return len(self._controls) - before

    def _add_sessions(self, batch: Batch, refused: Rejections) -> int:
        stored, by = 0, batch.recorded_by
        for place, (*values, labels) in zip(batch.sessions.positions, batch.sessions.rows(), strict=True):
            row = session_record((0, "", 0), values, labels).session
            key = row.id, by
            known = self._sessions[key].session if key in self._sessions else None
            if known is None and row.updated_at_ms < self._pruned_before and not self._is_new:
                refused.append(batch.sessions.rejection(place, row.id, _too_old("updated_at_ms")))
            elif self._stands_elsewhere(self._sessions, row, by):
                continue
            elif not row.revision:
                stored += self._label(row, by)
            elif known is None or row.revision > known.revision:
                self._sessions[key] = session_record(self._receipt(by), values, labels)
                if row.updated_at_ms > self._received_ms + MAX_AHEAD_MS:
                    self._suspects[key] = self._received_ms
                stored += 1
            elif row != known and (row.revision == known.revision or row.created_at_ms != known.created_at_ms):
                refused.append(batch.sessions.rejection(place, row.id, _conflict("the ledger has another session")))
        return stored

    def _label(self, row: audit_pb2.SessionRow, by: str) -> bool:
        key = row.id, by
        session = self._summed(row.id, row.created_at_ms, by)
        if session.revision:
            return False
        session.engine, session.model = session.engine or row.engine, session.model or row.model
        session.created_at_ms = min(session.created_at_ms, row.created_at_ms)
        session.updated_at_ms = max(session.updated_at_ms, row.updated_at_ms)
        known, labels = dict(session.labels), dict(row.labels)
        is_later = row.updated_at_ms >= self._labelled.get(key, 0)
        both = dict(list((known | labels if is_later else labels | known).items())[:32])
        if key in self._labelled and both == known:
            return False
        self._labelled[key] = max(row.updated_at_ms, self._labelled.get(key, 0))
        session.labels.clear()
        session.labels.update(both)
        return True

    def _summed(self, session_id: str, began_ms: int, by: str) -> audit_pb2.SessionRow:
        """The session that is summed up, and made where there is none."""
        key = session_id, by
        if key not in self._sessions:
            values = (session_id, 0, "", "", None, *[0] * 9, began_ms, 0)
            self._sessions[key] = session_record(self._receipt(by), values, {})
        session: audit_pb2.SessionRow = self._sessions[key].session
        return session

    def _sum_sessions(self, records: Sequence[Any], by: str) -> None:
        for row in map(row_of, records):
            if row.source not in (common_pb2.SOURCE_OTLP, common_pb2.SOURCE_HOOK) or row.session_id == "unknown":
                continue
            session = self._summed(row.session_id, row.created_at_ms, by)
            if session.revision:
                continue
            ended_ms = min(row.created_at_ms + row.duration_ms, MAX_TIME_MS)
            if ended_ms >= session.updated_at_ms:
                session.engine, session.updated_at_ms = row.engine, ended_ms
                session.model = row.model or session.model
            session.model = session.model or row.model
            session.created_at_ms = min(session.created_at_ms, row.created_at_ms)
            if isinstance(row, audit_pb2.AuditRow):
                session.tool_calls += 1
                continue
            session.usage.requests += 1
            for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"):
                setattr(session.usage, name, getattr(session.usage, name) + min(getattr(row, name), MAX_SUMMED))
            session.usage.known_cost_micros += min(row.cost_micros, MAX_SUMMED)
            session.usage.unpriced_requests += not row.HasField("cost_micros")


def _is_same(kept: Any, sent: Any, erased: bool) -> bool:
    if erased:
        copy = type(sent)()
        copy.CopyFrom(sent)
        for of, name in texts(copy):
            setattr(of, name, ERASED)
        sent = copy
    return bool(kept == sent)


def _conflict(message: str) -> Problem:
    return Problem(audit_pb2.REJECTION_CODE_CONFLICT, message)


def _too_old(field: str) -> Problem:
    message = f"{field} is before what the ledger has been pruned to"
    return Problem(audit_pb2.REJECTION_CODE_TOO_OLD, message, field)
