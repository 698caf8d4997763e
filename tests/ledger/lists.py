"""A ledger of plain Python lists, which keeps nothing on disk: the Ledger protocol in the plainest way, for tests."""

import asyncio
import operator
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import AlreadyExists, AlreadyRunning, AmbiguousId, Held, NotFound, StoreClosed, Unsupported
from audit_svc.ledger import groups
from audit_svc.ledger.batch import Batch, in_order
from audit_svc.ledger.clock import MAX_AHEAD_MS, SeenClock, wall_ms
from audit_svc.ledger.columns import MAX_TIME_MS, Column, Problem
from audit_svc.ledger.erased import ERASED
from audit_svc.ledger.erasing import ErasedCounts, ErasingProgress, Erasure
from audit_svc.ledger.holds import Act, Scope
from audit_svc.ledger.numbers import stream_id, stream_of
from audit_svc.ledger.pages import (
    Page,
    call_key,
    control_key,
    entry_key,
    producer_key,
    query_key,
    request_key,
    session_key,
    take_page,
)
from audit_svc.ledger.protocol import TAIL_ROWS, Tail
from audit_svc.ledger.pruning import Progress, PrunedCounts
from audit_svc.ledger.query import OUTCOMES, STATUSES, Filter, Query
from audit_svc.ledger.records import control_record, model_request_record, session_record, tool_call_record
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.ledger.valid_rows import ValidRows
from audit_svc.sql.read.session_traits import OF_REQUESTS, traits_of
from service_kit.paging import Position
from tests.audit_svc.samples import row_of

Rejections = list[audit_pb2.Rejection]
Gap = tuple[str, int, int]
Refused = tuple[str, str, int, int, int]


Key = tuple[str, str]
"""(id, recorded_by)."""


class ListLedger:
    """Records by their rows' keys."""

    queued_rows = 0

    def __init__(self) -> None:
        self._calls: dict[Key, questions_pb2.ToolCallRecord] = {}
        self._requests: dict[Key, questions_pb2.ModelRequestRecord] = {}
        self._sessions: dict[Key, questions_pb2.SessionRecord] = {}
        self._controls: dict[Key, questions_pb2.ControlRecord] = {}
        self._queries: list[administration_pb2.QueryRow] = []
        self._covered: dict[Key, set[int]] = {}
        self._position = 0
        self._pruned_before = 0
        self._suspects: dict[Key, int] = {}
        self._labelled: dict[Key, int] = {}
        self._refusals: dict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
        self._clock = SeenClock(None)
        self._is_pruning = self._is_closed = False
        self._erased: set[tuple[str, Key]] = set()
        self._kept_by_holds = 0
        self._holds: list[administration_pb2.Hold] = []

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

    async def log_queries(self, queries: Sequence[administration_pb2.QueryRow]) -> None:
        for row in queries:
            self._queries.append(administration_pb2.QueryRow(id=len(self._queries) + 1))
            self._queries[-1].MergeFrom(row)

    async def list_tool_calls(self, query: Query) -> Page[questions_pb2.ToolCallRecord]:
        return _page(self._matching(query.filter, self._calls), query, call_key)

    async def list_model_requests(self, query: Query) -> Page[questions_pb2.ModelRequestRecord]:
        return _page(self._matching(query.filter, self._requests), query, request_key)

    async def list_sessions(self, query: Query) -> Page[questions_pb2.SessionRecord]:
        traits = traits_of(query.filter)
        equal = {name: value for name, value in query.filter.equal.items() if name not in traits}
        wanted = replace(query.filter, equal=equal, outcomes=())
        found = [
            one
            for key, one in self._sessions.items()
            if _holds(wanted, one, one.session.labels)
            and all(set(values) & self._traits(key, name) for name, values in traits.items())
        ]
        return _page(found, query, session_key)

    def _traits(self, session: tuple[str, str], name: str) -> set[str]:
        """What the rows of a session say."""
        kinds: list[Any] = [self._calls, *([self._requests] if name in OF_REQUESTS else [])]
        rows = [(row_of(one), one.receipt.recorded_by) for kind in kinds for one in kind.values()]
        return {_stored(row, name) for row, by in rows if (row.session_id, by) == session}

    async def list_controls(self, query: Query) -> Page[questions_pb2.ControlRecord]:
        found = [one for one in self._controls.values() if _holds(query.filter, one, {})]
        return _page(found, query, control_key)

    async def list_queries(self, query: Query) -> Page[administration_pb2.QueryRow]:
        return _page([row for row in self._queries if _holds(query.filter, row, {})], query, query_key)

    async def get_session(self, query: Query) -> tuple[questions_pb2.SessionRecord, Page[questions_pb2.Entry]]:
        session_id, name = query.filter.equal["session_id"], query.filter.equal.get("recorded_by")
        found = [one for (id_, by), one in self._sessions.items() if id_ == session_id and name in (None, by)]
        if not found:
            raise NotFound("the ledger has no session with this id", "session", session_id)
        if len(found) > 1:
            names = sorted(one.receipt.recorded_by for one in found)
            raise AmbiguousId("several callers recorded a session with this id", "session", session_id, names)
        session = found[0]
        wanted = Filter(query.filter.equal)
        entries = map(_entry, [*self._matching(wanted, self._calls), *self._matching(wanted, self._requests)])
        rest = [
            entry for entry in sorted(entries, key=entry_key) if query.after is None or entry_key(entry) > query.after
        ]
        return session, take_page(rest, lambda entry: entry, query.size, entry_key)

    async def summarize_usage(self, query: Query) -> Page[questions_pb2.UsageGroup]:
        found: dict[tuple[str, ...], questions_pb2.UsageGroup] = {}
        durations = defaultdict[tuple[str, ...], list[int]](list)
        if "recorded_by" not in query.group_by:
            self._refuse_ambiguous(query.filter.equal)
        for record in self._matching(query.filter, self._calls):
            call, key = row_of(record), self._group(query.group_by, record)
            row = found.setdefault(key, _usage_group(key))
            row.tool_calls += 1
            row.tool_call_errors += call.HasField("error")
            row.nonzero_exits += call.exit_code != 0
            row.http_errors += call.http_status >= 400
            row.result_bytes += call.result_bytes
            durations[key].append(call.duration_ms)
        wanted = query.filter
        if not wanted.is_of_calls:
            for record in self._matching(wanted, self._requests):
                cost, key = row_of(record), self._group(query.group_by, record)
                row = found.setdefault(key, _usage_group(key))
                row.usage.requests += 1
                row.model_request_errors += cost.HasField("error")
                for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"):
                    setattr(row.usage, name, getattr(row.usage, name) + getattr(cost, name))
                row.usage.known_cost_micros += cost.cost_micros
                row.usage.unpriced_requests += not cost.HasField("cost_micros")
        for key, took in durations.items():
            for percent in (50, 95, 99):
                setattr(found[key], f"duration_p{percent}_ms", sorted(took)[-(-len(took) * percent // 100) - 1])
        if not query.group_by:
            return Page([found.get((), _usage_group(()))])
        rest = [found[key] for key in sorted(found) if query.after is None or key > query.after]
        return take_page(rest, lambda row: row, query.size, lambda row: tuple(row.values))

    async def export_tool_calls(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[questions_pb2.ToolCallRecord]:
        return self._export(self._calls, call_key, wanted, after, last_position)[:size]

    async def last_position(self) -> int:
        return _last(self._calls)

    async def tool_calls_after(self, wanted: Filter, position: int) -> Tail[questions_pb2.ToolCallRecord]:
        return self._after(self._calls, call_key, wanted, position)

    async def export_model_requests(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[questions_pb2.ModelRequestRecord]:
        return self._export(self._requests, request_key, wanted, after, last_position)[:size]

    async def last_request_position(self) -> int:
        return _last(self._requests)

    async def model_requests_after(self, wanted: Filter, position: int) -> Tail[questions_pb2.ModelRequestRecord]:
        return self._after(self._requests, request_key, wanted, position)

    def _export(
        self,
        table: Mapping[Key, Any],
        key: Callable[[Any], Position],
        wanted: Filter,
        after: Position | None,
        last_position: int,
    ) -> list[Any]:
        old = {row_id: row for row_id, row in table.items() if row.receipt.position <= last_position}
        rows = sorted(self._matching(wanted, old), key=key)
        return [row for row in rows if after is None or key(row) > after]

    def _after(
        self, table: Mapping[Key, Any], key: Callable[[Any], Position], wanted: Filter, position: int
    ) -> Tail[Any]:
        last = _last(table)
        upto = min(last, position + TAIL_ROWS)
        found = [row for row in self._matching(wanted, table) if position < row.receipt.position <= upto]
        page = take_page(found, lambda row: row, TAIL_ROWS, key)
        cut = len(page.rows) < len(found)
        return Tail(page.rows, page.rows[-1].receipt.position if cut else max(upto, position), last)

    async def why_no_commit(self) -> str:
        return ""

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

    async def act_on_hold(self, act: Act) -> administration_pb2.Hold:
        found = next((hold for hold in self._holds if hold.name == act.name and not hold.lifted_by), None)
        if act.filter is None:
            if found is None:
                raise NotFound("no hold of that name is in place", "hold", act.name)
            found.lifted_by, found.lifted_at_ms, found.lift_reason = act.by, wall_ms(), act.reason
            return found
        if found:
            raise AlreadyExists("a hold of that name is in place", "hold", act.name)
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
            if not hold.lifted_by and is_met and glob and _holds(wanted, record, labels):
                return hold.name
        return ""

    async def erase(self, wanted: Erasure) -> AsyncGenerator[ErasingProgress, None]:
        progress = await self.count_erasable(wanted)
        for kind, key, record in self._erasable(wanted):
            row = row_of(record)
            for of, name in _texts(row):
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
        for name in filter(None, (self._held(record) for _, _, record in found if _texts(row_of(record)))):
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
        return [one for one in found if one[:2] not in self._erased and _texts(row_of(one[2]))]

    def _is_meant(self, wanted: Erasure, kind: str, key: Key, record: Any) -> bool:
        if wanted.row_id:
            return key[0] == wanted.row_id
        if wanted.before_ms:
            return max(_began(row_of(record)), self._suspects.get(key, 0)) < wanted.before_ms
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

    async def close(self) -> None:
        self._is_closed = True

    def gaps(self) -> list[Gap]:
        """The sequence numbers of each producer that never came, as ranges."""
        found: list[Gap] = []
        for (producer, name), numbers in sorted(self._covered.items()):
            known = self._covered.get((producer, ""), set()) if name else set()
            begin = max(known, default=0) + 1
            for number in sorted(set(range(begin, max(numbers))) - numbers):
                if found and found[-1][0] == producer and found[-1][2] == number - 1:
                    found[-1] = producer, found[-1][1], number
                else:
                    found.append((producer, number, number))
        return found

    async def list_producers(self, query: Query) -> Page[questions_pb2.Producer]:
        found: dict[Key, questions_pb2.Producer] = {}
        for (producer, name), numbers in self._covered.items():
            known = self._covered.get((producer, ""), set()) if name else set()
            missing = len(set(range(max(known, default=0) + 1, max(numbers))) - numbers)
            if missing or not stream_of(producer):
                found[producer, name] = questions_pb2.Producer(
                    id=producer, recorded_by=name, highest_sequence=max(numbers), missing=missing
                )
        for (producer, code, name), ranges in sorted(self._refusals.items()):
            row = found.setdefault((producer, name), questions_pb2.Producer(id=producer, recorded_by=name))
            row.refused_rows += len(ranges)
            row.refusal_codes.append(code)
        wanted, begins = query.filter, stream_id(query.filter.equal.get("session_id", ""), "")
        rows = [
            row
            for key, row in sorted(found.items())
            if wanted.is_whole in (None, not (row.missing or row.refused_rows))
            and wanted.equal.get("recorded_by") in (None, row.recorded_by)
            and ("session_id" not in wanted.equal or row.id.startswith(begins))
            and (query.after is None or key > query.after)
        ]
        return take_page(rows, lambda row: row, query.size, producer_key)

    def refusals(self) -> list[Refused]:
        """How many rows of each producer were refused for each reason, and the numbers of their batches."""
        return [
            (*key[:2], len(ranges), min(first for first, _ in ranges), max(last for _, last in ranges))
            for key, ranges in sorted(self._refusals.items())
        ]

    def _receipt(self, by: str) -> tuple[int, str, int]:
        self._position += 1
        return self._position, by, wall_ms()

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

    def _labels(self, record: Any) -> dict[str, str]:
        row = row_of(record)
        session_id = row.id if isinstance(row, audit_pb2.SessionRow) else getattr(row, "session_id", "")
        session = self._sessions.get((session_id, record.receipt.recorded_by))
        return dict(session.session.labels) if session else {}

    def _refuse_ambiguous(self, equal: Mapping[str, str]) -> None:
        session_id = equal.get("session_id")
        if session_id is None or "recorded_by" in equal:
            return
        names = {by for id_, by in self._sessions if id_ == session_id}
        if len(names) > 1:
            raise AmbiguousId("several callers recorded a session with this id", "session", session_id, sorted(names))

    def _matching(self, wanted: Filter, table: Mapping[Key, Any]) -> list[Any]:
        return [
            record
            for key, record in table.items()
            if _holds(wanted, record, self._labels(record)) and wanted.clock_suspect in (None, key in self._suspects)
        ]

    def _group(self, names: Iterable[str], record: Any) -> tuple[str, ...]:
        row: Any = row_of(record)
        is_call = isinstance(row, audit_pb2.AuditRow)
        values = {
            "session": row.session_id,
            "recorded_by": record.receipt.recorded_by,
            "engine": row.engine,
            "model": row.model,
            "tool": row.tool_name if is_call else "",
            "outcome": (OUTCOMES[row.outcome] or "") if is_call else "",
            **{name: _stored(row, name) or "" for name in groups.WHO if is_call or name != "mcp_server"},
            **{name: row.created_at_ms // ms * ms for name, (ms, _) in groups.PERIODS.items()},
            **{groups.LABEL + key: value for key, value in self._labels(record).items()},
        }
        return tuple(groups.group_name(name, values.get(name, "")) for name in names)

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


def _last(table: Mapping[Key, Any]) -> int:
    return max((row.receipt.position for row in table.values()), default=0)


def _texts(row: Any) -> list[tuple[Any, str]]:
    """The texts of a row that can be erased: in which message, and their names."""
    names: list[tuple[Any, str]]
    if isinstance(row, audit_pb2.AuditRow):
        names = [(row, "args_summary"), *([(row, "error")] if row.HasField("error") else [])]
        return names + ([(row.decision, "reason")] if row.decision.reason else [])
    if isinstance(row, audit_pb2.ControlRow):
        return [(row, "reason")] if row.reason else []
    return [(row, "error")] if isinstance(row, audit_pb2.CostRow) and row.HasField("error") else []


def _is_same(kept: Any, sent: Any, erased: bool) -> bool:
    if erased:
        copy = type(sent)()
        copy.CopyFrom(sent)
        for of, name in _texts(copy):
            setattr(of, name, ERASED)
        sent = copy
    return bool(kept == sent)


def _page(records: Iterable[Any], query: Query, key: Callable[[Any], Position]) -> Page[Any]:
    found = sorted(records, key=key, reverse=True)
    rest = [record for record in found if query.after is None or key(record) < query.after]
    return take_page(rest, lambda record: record, query.size, key)


def _conflict(message: str) -> Problem:
    return Problem(audit_pb2.REJECTION_CODE_CONFLICT, message)


def _too_old(field: str) -> Problem:
    message = f"{field} is before what the ledger has been pruned to"
    return Problem(audit_pb2.REJECTION_CODE_TOO_OLD, message, field)


def _usage_group(values: Iterable[str]) -> questions_pb2.UsageGroup:
    return questions_pb2.UsageGroup(values=values, usage=common_pb2.Usage())


def _holds(wanted: Filter, record: Any, labels: Any) -> bool:
    row: Any = row_of(record)
    equal = dict[str, Any](wanted.equal)
    name = equal.pop("recorded_by", None)
    if name is not None and name != record.receipt.recorded_by:
        return False
    is_cost = isinstance(row, audit_pb2.CostRow)
    return (
        all(_stored(row, name) == value for name, value in equal.items() if not (is_cost and name == "tool_name"))
        and all(_stored(row, name) in values for name, values in wanted.any_of.items())
        and (not wanted.outcomes or is_cost or OUTCOMES[row.outcome] in wanted.outcomes)
        and (not wanted.statuses or STATUSES[row.status] in wanted.statuses)
        and (wanted.has_error is None or row.HasField("error") == wanted.has_error)
        and (wanted.shadow is None or row.shadow == wanted.shadow)
        and all(labels.get(key) == value for key, value in wanted.labels)
        and (not wanted.contains or wanted.contains.lower() in row.args_summary.lower())
        and (wanted.from_ms is None or _began(row) >= wanted.from_ms)
        and (wanted.before_ms is None or _began(row) < wanted.before_ms)
        and (wanted.updated_from_ms is None or row.updated_at_ms >= wanted.updated_from_ms)
        and (wanted.updated_before_ms is None or row.updated_at_ms < wanted.updated_before_ms)
    )


def _began(row: Any) -> int:
    return int(row.at_ms if isinstance(row, audit_pb2.ControlRow) else row.created_at_ms)


def _stored(row: Any, name: str) -> Any:
    """What a column of a table has of a row. Rows of the log of queries have their fields' names."""
    column = next((one for one in _COLUMNS.get(type(row), ()) if one.name == name), None)
    if column is None:
        return getattr(row, name)
    return column.store([operator.attrgetter(column.wire_name)(row)], [row])[0]


_COLUMNS: Mapping[type, tuple[Column, ...]] = {
    audit_pb2.AuditRow: TOOL_CALL_COLUMNS,
    audit_pb2.CostRow: COST_COLUMNS,
    audit_pb2.SessionRow: SESSION_COLUMNS,
    audit_pb2.ControlRow: CONTROL_COLUMNS,
}


def _entry(record: Any) -> questions_pb2.Entry:
    row = row_of(record)
    entry = questions_pb2.Entry(at_ms=row.created_at_ms, session_id=row.session_id, turn_id=row.turn_id)
    if isinstance(row, audit_pb2.CostRow):
        entry.model_request.CopyFrom(record)
    else:
        entry.tool_call.CopyFrom(record)
    return entry
