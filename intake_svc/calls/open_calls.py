"""The calls that are not in the spool yet, in memory as in the journal."""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence

from onrecord.audit.v1 import audit_pb2

from intake_svc.calls.call import NEVER_ENDED, SLACK_MS, ByTool, Call, key_of, may_be_alike, overlap
from intake_svc.calls.journal import Journal
from intake_svc.hooks.rows import NOT_TOLD

_MAX_OPEN = 16_384


class OpenCalls:
    """The calls. One thread at a time."""

    def __init__(self, journal: Journal, join_seconds: float, open_seconds: float) -> None:
        """Finds those of the journal."""
        self._journal = journal
        self._join_seconds = join_seconds
        self._open_seconds = open_seconds
        self._calls: dict[str, Call] = {}
        self._by_key: dict[str, list[Call]] = {}
        """Of one key more than one where an agent gives an id again."""
        self._without_key: ByTool[Call] = ByTool()
        self._told: set[str] = set()
        for row in journal.calls.values():
            has_ended = bool(row.outcome or row.duration_ms or row.HasField("result_bytes"))
            call = self.make(row, has_ended=has_ended)
            call.why = NOT_TOLD if has_ended else NEVER_ENDED
            call.told += journal.told.get(row.id, [])
            self._add(call)

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    def make(self, row: audit_pb2.AuditRow, *, has_ended: bool) -> Call:
        """A call of a row, which is not kept yet."""
        return Call(row, key_of(row), self.until(has_ended=has_ended), has_ended=has_ended)

    def until(self, *, has_ended: bool) -> float:
        """When a call goes to the spool of which something is told now, by time.monotonic()."""
        return time.monotonic() + (self._join_seconds if has_ended else self._open_seconds)

    def keep(self, calls: Iterable[Call]) -> None:
        """Keeps calls as they are now; on the disk when it returns.

        Raises:
            OSError: they are not.
        """
        calls = list(calls)
        self._journal.put((call.row, call.told) for call in calls)
        for call in calls:
            self._add(call)

    def remove(self, call: Call) -> None:
        """A call is in the spool."""
        self._calls.pop(call.row.id, None)
        self._told.difference_update(call.told)
        if not call.key:
            self._without_key.remove(call.row.id)
        elif others := self._others_of(call):
            self._by_key[call.key] = others
        else:
            self._by_key.pop(call.key, None)

    def with_key(self, key: str) -> Sequence[Call]:
        """The calls that are known by a key, in the order in which they began."""
        return self._by_key.get(key, ())

    def was_told_by(self, event: str) -> bool:
        """Whether a hook's event has told of a call here."""
        return event in self._told

    def that_ends(self, row: audit_pb2.AuditRow, key: str, ended_by_ms: int | None) -> Call | None:
        """The call that a hook says has ended: by its key, else by session, tool and arguments.

        Args:
            row: what the event says of the call.
            key: what the call is known by; empty where it has no id.
            ended_by_ms: when it ended at the latest; None for now.
        """
        if key:
            begun = self.with_key(key)
            if ended_by_ms is not None:
                begun = [call for call in begun if call.row.created_at_ms <= ended_by_ms + SLACK_MS]
            return begun[-1] if begun else None
        alike = [call for call in self._without_key.like(row) if not call.has_ended]
        return next((call for call in alike if may_be_alike(call.row, row)), alike[0] if alike else None)

    def same(self, row: audit_pb2.AuditRow, taken: Collection[str]) -> Call | None:
        """The call of a row of telemetry, where no id but their times and tool tell that they are one."""
        found = (call for call in self._without_key.like(row) if overlap(call.row, row))
        return next((call for call in found if call.row.id not in taken), None)

    def _add(self, call: Call) -> None:
        self._calls[call.row.id] = call
        self._told.update(call.told)
        if len(self._calls) > _MAX_OPEN:  # the oldest goes as it is
            oldest = next((each for each in self if each.due), call)
            oldest.due = 0.0
        if call.key:
            calls = [*self._others_of(call), call]
            self._by_key[call.key] = sorted(calls, key=lambda each: each.row.created_at_ms)
        else:
            self._without_key.add(call.row, call)

    def _others_of(self, call: Call) -> list[Call]:
        return [each for each in self._by_key.get(call.key, ()) if each.row.id != call.row.id]
