"""A ledger of plain Python lists, which keeps nothing on disk: the Ledger protocol in the plainest way, for tests."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, BinaryIO

from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import AlreadyRunning, NotFound, StoreClosed, Unsupported
from audit_svc.ledger import groups
from audit_svc.ledger.batch import Batch, ValidRows, cost_row, rejection, session_row, tool_call_row
from audit_svc.ledger.clock import MAX_AHEAD_MS, SeenClock, wall_ms
from audit_svc.ledger.pages import Page, by_time, take_page
from audit_svc.ledger.protocol import TAIL_ROWS, Tail
from audit_svc.ledger.pruning import Progress, PrunedCounts
from audit_svc.ledger.query import OUTCOMES, STATUSES, Filter, Query
from service_kit.paging import Position

Rejections = list[tuple[int, audit_pb2.Rejection]]
Gap = tuple[str, int, int]
Refused = tuple[str, str, int, int, int]


class ListLedger:
    """Rows by their ids, each with its position."""

    queued_rows = 0

    def __init__(self) -> None:
        self._calls: dict[str, tuple[int, audit_pb2.AuditRow]] = {}
        self._costs: dict[str, tuple[int, audit_pb2.CostRow]] = {}
        self._sessions: dict[str, tuple[audit_pb2.SessionRow, str]] = {}
        self._queries: list[audit_pb2.QueryRow] = []
        self._covered: dict[str, set[int]] = defaultdict(set)
        self._position = 0
        self._pruned_before = 0
        self._suspects: dict[str, int] = {}
        self._refusals: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        self._clock = SeenClock(None)
        self._is_pruning = self._is_closed = False

    def record(self, batch: Batch) -> Awaitable[audit_pb2.RecordResponse]:
        if self._is_closed:
            raise StoreClosed("the ledger is shutting down")
        refused = list(batch.rejections)
        self._is_new = not self._covered.get(batch.producer_id, set()) & {
            *range(batch.first_sequence, batch.sequence + 1)
        }
        self._is_new &= bool(batch.producer_id and batch.sequence)
        self._received_ms = batch.received_ms
        stored = self._add_sessions(batch, refused)
        stored += self._add(self._calls, batch.tool_calls, tool_call_row, refused)
        stored += self._add(self._costs, batch.costs, cost_row, refused)
        if batch.producer_id and batch.sequence:
            self._covered[batch.producer_id].update(range(batch.first_sequence, batch.sequence + 1))
        for _, entry in refused:
            code = audit_pb2.RejectionCode.Name(entry.code).removeprefix("REJECTION_CODE_").lower()
            self._refusals[batch.producer_id, code].append((batch.first_sequence, batch.sequence))
        response = asyncio.get_running_loop().create_future()
        response.set_result(
            audit_pb2.RecordResponse(
                sequence=batch.sequence,
                stored=stored,
                duplicates=len(batch) - stored - (len(refused) - len(batch.rejections)),
                rejections=[entry for _, entry in sorted(refused, key=lambda each: each[0])],
            )
        )
        return response

    async def log_queries(self, queries: Sequence[audit_pb2.QueryRow]) -> None:
        for row in queries:
            self._queries.append(audit_pb2.QueryRow(id=len(self._queries) + 1))
            self._queries[-1].MergeFrom(row)

    async def list_tool_calls(self, query: Query) -> Page[audit_pb2.AuditRow]:
        return _page(self._matching(query.filter, self._calls), query)

    async def list_sessions(self, query: Query) -> Page[audit_pb2.SessionRow]:
        found = [row for row, _ in self._sessions.values() if _holds(query.filter, row, row.labels)]
        return _page(found, query)

    async def list_queries(self, query: Query) -> Page[audit_pb2.QueryRow]:
        return _page([row for row in self._queries if _holds(query.filter, row, {})], query)

    async def get_session(self, query: Query) -> tuple[audit_pb2.SessionRow, Page[audit_pb2.TimelineEntry]]:
        session_id = query.filter.equal["session_id"]
        if session_id not in self._sessions:
            raise NotFound("the ledger has no session with this id")
        rows = [*self._matching(query.filter, self._calls), *self._matching(query.filter, self._costs)]
        rest = [row for row in sorted(rows, key=by_time) if query.after is None or by_time(row) > query.after]
        page = take_page(rest, lambda row: row, query.size, by_time)
        return self._sessions[session_id][0], Page(list(map(_entry, page.rows)), page.next)

    async def summarize_usage(self, query: Query) -> Page[audit_pb2.UsageRow]:
        found: dict[tuple[str, ...], audit_pb2.UsageRow] = {}
        durations = defaultdict[tuple[str, ...], list[int]](list)
        for call in self._matching(query.filter, self._calls):
            key = self._group(query.group_by, call)
            row = found.setdefault(key, audit_pb2.UsageRow(group=key))
            row.calls += 1
            row.errors += call.HasField("error")
            row.nonzero_exits += call.exit_code != 0
            row.http_errors += call.http_status >= 400
            row.result_bytes += call.result_bytes
            durations[key].append(call.duration_ms)
        wanted = query.filter
        if not ("tool_name" in wanted.equal or wanted.outcomes):
            for cost in self._matching(wanted, self._costs):
                key = self._group(query.group_by, cost)
                row = found.setdefault(key, audit_pb2.UsageRow(group=key))
                row.requests += 1
                row.request_errors += cost.HasField("error")
                for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost_micros"):
                    setattr(row, name, getattr(row, name) + getattr(cost, name))
                row.unpriced_requests += not cost.HasField("cost_micros")
        for key, took in durations.items():
            for percent in (50, 95, 99):
                setattr(found[key], f"duration_p{percent}_ms", sorted(took)[-(-len(took) * percent // 100) - 1])
        if not query.group_by:
            return Page([found.get((), audit_pb2.UsageRow())])
        rest = [found[key] for key in sorted(found) if query.after is None or key > query.after]
        return take_page(rest, lambda row: row, query.size, lambda row: tuple(row.group))

    async def export_tool_calls(
        self, wanted: Filter, after: Position | None, last_position: int, size: int
    ) -> list[audit_pb2.AuditRow]:
        old = {row_id: entry for row_id, entry in self._calls.items() if entry[0] <= last_position}
        rows = sorted(self._matching(wanted, old), key=by_time)
        return [row for row in rows if after is None or by_time(row) > after][:size]

    async def last_position(self) -> int:
        return max((position for position, _ in self._calls.values()), default=0)

    async def tool_calls_after(self, wanted: Filter, position: int) -> Tail:
        last = await self.last_position()
        upto = min(last, position + TAIL_ROWS)
        found = [(at, row) for at, row in self._calls.values() if position < at <= upto and _holds(wanted, row, {})]
        page = take_page(found, lambda entry: entry[1], TAIL_ROWS, by_time)
        cut = len(page.rows) < len(found)
        return Tail(page.rows, found[len(page.rows) - 1][0] if cut else max(upto, position), last)

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
            self._calls, self._costs, self._sessions = self._kept(before_ms)
            self._queries = [row for row in self._queries if row.created_at_ms >= before_ms]
            yield progress
        finally:
            self._is_pruning = False

    async def reset_mark(self, before_ms: int, by: str) -> Progress:
        self._pruned_before = min(before_ms, self._pruned_before)
        await self._log_care(by)
        return Progress(self._pruned_before, PrunedCounts(), done=True)

    async def _log_care(self, by: str) -> None:
        row = audit_pb2.QueryRow(caller=by, method="Prune", filters="{}", status="OK", created_at_ms=wall_ms())
        await self.log_queries([row])

    async def count_prunable(self, before_ms: int) -> Progress:
        calls, costs, sessions = self._kept(before_ms)
        old = [row for row_id, (_, row) in self._calls.items() if row_id not in calls]
        spent = [row for row_id, (_, row) in self._costs.items() if row_id not in costs]
        summed = ("input_tokens", "output_tokens", "cost_micros")
        sums = {name: sum(getattr(row, name) for row in spent) for name in summed}
        failed = sum(row.HasField("error") for row in old)
        removed = PrunedCounts(len(old), failed, len(spent), sessions=len(self._sessions) - len(sessions), **sums)
        return Progress(before_ms, removed, done=True)

    async def unfinished_prune(self) -> int | None:
        return None

    async def back_up(self) -> tuple[BinaryIO, int]:
        raise Unsupported("a ledger of lists has no file: there is nothing to copy")

    async def close(self) -> None:
        self._is_closed = True

    def gaps(self) -> list[Gap]:
        """The sequence numbers of each producer that never came, as ranges."""
        found: list[Gap] = []
        for producer, numbers in sorted(self._covered.items()):
            for number in sorted(set(range(1, max(numbers))) - numbers):
                if found and found[-1][0] == producer and found[-1][2] == number - 1:
                    found[-1] = producer, found[-1][1], number
                else:
                    found.append((producer, number, number))
        return found

    def refusals(self) -> list[Refused]:
        """How many rows of each producer were refused for each reason, and the numbers of their batches."""
        return [
            (*key, len(ranges), min(first for first, _ in ranges), max(last for _, last in ranges))
            for key, ranges in sorted(self._refusals.items())
        ]

    def _add(
        self, table: dict[str, tuple[int, Any]], rows: ValidRows, read: Callable[[Any], Any], refused: Rejections
    ) -> int:
        before = len(table)
        for place, row in zip(rows.positions, map(read, rows.rows()), strict=True):
            if row.created_at_ms < self._pruned_before and not self._is_new and row.id not in self._suspects:
                message = "created_at_ms is before what the ledger has been pruned to"
                refused.append((place, rejection(row.id, audit_pb2.REJECTION_CODE_TOO_OLD, message)))
            elif row.id not in table:
                self._position += 1
                table[row.id] = self._position, row
                if row.created_at_ms < self._pruned_before or row.created_at_ms > self._received_ms + MAX_AHEAD_MS:
                    self._suspects[row.id] = self._received_ms
            elif table[row.id][1] != row:
                message = "the ledger has a row with this id and other content"
                refused.append((place, rejection(row.id, audit_pb2.REJECTION_CODE_CONFLICT, message)))
        return len(table) - before

    def _add_sessions(self, batch: Batch, refused: Rejections) -> int:
        stored = 0
        for place, (*values, labels) in zip(batch.sessions.positions, batch.sessions.rows(), strict=True):
            row = session_row(values, labels)
            known, owner = self._sessions.get(row.id, (None, ""))
            if known is None and row.updated_at_ms < self._pruned_before and not self._is_new:
                message = "updated_at_ms is before what the ledger has been pruned to"
                refused.append((place, rejection(row.id, audit_pb2.REJECTION_CODE_TOO_OLD, message)))
            elif owner and batch.recorded_by and owner != batch.recorded_by:
                message = "another caller records this session"
                refused.append((place, rejection(row.id, audit_pb2.REJECTION_CODE_CONFLICT, message)))
            elif known is None or row.revision > known.revision:
                self._sessions[row.id] = row, owner or batch.recorded_by
                if row.updated_at_ms > self._received_ms + MAX_AHEAD_MS:
                    self._suspects[row.id] = self._received_ms
                stored += 1
        return stored

    def _labels(self, session_id: str) -> dict[str, str]:
        return dict(self._sessions[session_id][0].labels) if session_id in self._sessions else {}

    def _matching(self, wanted: Filter, table: dict[str, tuple[int, Any]]) -> list[Any]:
        return [
            row
            for _, row in table.values()
            if _holds(wanted, row, self._labels(row.session_id))
            and (not wanted.clock_suspect or row.id in self._suspects)
        ]

    def _group(self, names: Iterable[str], row: Any) -> tuple[str, ...]:
        is_call = isinstance(row, audit_pb2.AuditRow)
        values = {
            "session": row.session_id,
            "engine": row.engine,
            "model": row.model,
            "tool": row.tool_name if is_call else "",
            "outcome": (OUTCOMES[row.outcome] or "") if is_call else "",
            **{name: row.created_at_ms // ms * ms for name, (ms, _) in groups.PERIODS.items()},
            **{groups.LABEL + key: value for key, value in self._labels(row.session_id).items()},
        }
        return tuple(groups.group_name(name, values.get(name, "")) for name in names)

    def _kept(self, before_ms: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        calls, costs = (
            {
                row_id: entry
                for row_id, entry in table.items()
                if max(entry[1].created_at_ms, self._suspects.get(row_id, 0)) >= before_ms
            }
            for table in (self._calls, self._costs)
        )
        used = {row.session_id for _, row in (*calls.values(), *costs.values())}
        sessions = {
            row.id: (row, owner)
            for row, owner in self._sessions.values()
            if row.id in used or max(row.created_at_ms, row.updated_at_ms, self._suspects.get(row.id, 0)) >= before_ms
        }
        return calls, costs, sessions


def _page(rows: Iterable[Any], query: Query) -> Page[Any]:
    found = sorted(rows, key=by_time, reverse=True)
    rest = [row for row in found if query.after is None or by_time(row) < query.after]
    return take_page(rest, lambda row: row, query.size, by_time)


def _holds(wanted: Filter, row: Any, labels: Any) -> bool:
    equal: dict[str, Any] = dict(wanted.equal)
    if status := equal.pop("status", None):
        equal["status"] = next(number for number, name in STATUSES.items() if name == status)
    is_cost = isinstance(row, audit_pb2.CostRow)
    return (
        all(getattr(row, name) == value for name, value in equal.items() if not (is_cost and name == "tool_name"))
        and (not wanted.outcomes or is_cost or OUTCOMES[row.outcome] in wanted.outcomes)
        and (not wanted.errors_only or row.HasField("error"))
        and all(labels.get(key) == value for key, value in wanted.labels)
        and (not wanted.contains or wanted.contains.lower() in row.args_summary.lower())
        and (wanted.from_ms is None or row.created_at_ms >= wanted.from_ms)
        and (wanted.before_ms is None or row.created_at_ms < wanted.before_ms)
    )


def _entry(row: Any) -> audit_pb2.TimelineEntry:
    if isinstance(row, audit_pb2.CostRow):
        return audit_pb2.TimelineEntry(model_request=row)
    return audit_pb2.TimelineEntry(tool_call=row)
