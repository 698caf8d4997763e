"""How the ledger of lists answers."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import AmbiguousId, NotFound
from audit_svc.ledger import groups
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
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.tables import OUTCOMES
from audit_svc.sql.read.session_traits import OF_REQUESTS, traits_of
from recording.durations import WITHOUT_DURATION
from service_kit.paging import Position
from tests.audit_svc.samples import row_of
from tests.ledger.lists.rows import Key, Rows, holds, stored

Gap = tuple[str, int, int]
Refused = tuple[str, str, int, int, int]


class Asked(Rows):
    """Answers queries, exports and tails."""

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
            if holds(wanted, one, one.session.labels)
            and all(set(values) & self._traits(key, name) for name, values in traits.items())
        ]
        return _page(found, query, session_key)

    def _traits(self, session: tuple[str, str], name: str) -> set[str]:
        """What the rows of a session say."""
        kinds: list[Any] = [self._calls, *([self._requests] if name in OF_REQUESTS else [])]
        rows = [(row_of(one), one.receipt.recorded_by) for kind in kinds for one in kind.values()]
        return {stored(row, name) for row, by in rows if (row.session_id, by) == session}

    async def list_controls(self, query: Query) -> Page[questions_pb2.ControlRecord]:
        found = [one for one in self._controls.values() if holds(query.filter, one, {})]
        return _page(found, query, control_key)

    async def list_queries(self, query: Query) -> Page[administration_pb2.QueryRow]:
        return _page([row for row in self._queries if holds(query.filter, row, {})], query, query_key)

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
            durations[key] += [call.duration_ms] if call.outcome not in WITHOUT_DURATION else []
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
            for percent in (50, 95, 99) if took else ():
                setattr(found[key], f"duration_p{percent}_ms", sorted(took)[-(-len(took) * percent // 100) - 1])
        if not query.group_by:
            return Page([found.get((), _usage_group(()))])
        if not query.by_cost:
            rest = [found[key] for key in sorted(found) if query.after is None or key > query.after]
            return take_page(rest, lambda row: row, query.size, lambda row: tuple(row.values))

        def place(row: questions_pb2.UsageGroup) -> Position:
            return row.usage.known_cost_micros, row.tool_calls, *row.values

        rows = sorted((found[key] for key in sorted(found)), key=lambda row: place(row)[:2], reverse=True)
        first = 0 if query.after is None else [place(row) for row in rows].index(query.after) + 1
        return take_page(rows[first:], lambda row: row, query.size, place)

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
            **{name: stored(row, name) or "" for name in groups.WHO if is_call or name != "mcp_server"},
            **{name: row.created_at_ms // ms * ms for name, (ms, _) in groups.PERIODS.items()},
            **{groups.LABEL + key: value for key, value in self._labels(record).items()},
        }
        return tuple(groups.group_name(name, values.get(name, "")) for name in names)

    def _refuse_ambiguous(self, equal: Mapping[str, str]) -> None:
        session_id = equal.get("session_id")
        if session_id is None or "recorded_by" in equal:
            return
        names = {by for id_, by in self._sessions if id_ == session_id}
        if len(names) > 1:
            raise AmbiguousId("several callers recorded a session with this id", "session", session_id, sorted(names))

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

    def refusals(self) -> list[Refused]:
        """How many rows of each producer were refused for each reason, and the numbers of their batches."""
        return [
            (*key[:2], len(ranges), min(first for first, _ in ranges), max(last for _, last in ranges))
            for key, ranges in sorted(self._refusals.items())
        ]

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


def _last(table: Mapping[Key, Any]) -> int:
    return max((row.receipt.position for row in table.values()), default=0)


def _page(records: Iterable[Any], query: Query, key: Callable[[Any], Position]) -> Page[Any]:
    found = sorted(records, key=key, reverse=True)
    rest = [record for record in found if query.after is None or key(record) < query.after]
    return take_page(rest, lambda record: record, query.size, key)


def _usage_group(values: Iterable[str]) -> questions_pb2.UsageGroup:
    return questions_pb2.UsageGroup(values=values, usage=common_pb2.Usage())


def _entry(record: Any) -> questions_pb2.Entry:
    row = row_of(record)
    entry = questions_pb2.Entry(at_ms=row.created_at_ms, session_id=row.session_id, turn_id=row.turn_id)
    if isinstance(row, audit_pb2.CostRow):
        entry.model_request.CopyFrom(record)
    else:
        entry.tool_call.CopyFrom(record)
    return entry
