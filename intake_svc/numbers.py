"""The numbers that agents give to their own events, as the ledger takes them: it tells which never came."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import groupby

from onrecord.audit.v1 import audit_pb2

from intake_svc.dialects import SequenceNumber
from service_kit.bounds import MAX_SUM

_MOST_SESSIONS = 4_096

_Session = tuple[str, str, str]
"""The caller, the session and the stream."""
_End = tuple[str, str, str, int]
"""The caller, who counts, the stream, and the highest number."""


def numbers_of(sequence: Iterable[SequenceNumber]) -> Iterator[audit_pb2.SessionNumbers]:
    """The ranges that the numbers make up, those of each session's stream in their order."""
    for (session_id, stream), found in groupby(sorted({one[:3] for one in sequence}), key=lambda one: one[:2]):
        run: audit_pb2.SessionNumbers | None = None
        for number in (number for _, _, number in found if 0 <= number <= MAX_SUM):
            if run is not None and number == run.last + 1:
                run.last = number
                continue
            if run is not None:
                yield run
            run = audit_pb2.SessionNumbers(session_id=session_id, stream=stream, first=number, last=number)
        if run is not None:
            yield run


class Continued:
    """Sessions that go on with the numbers of the one before: what is below them came with that one, and is no hole.

    Claude Code counts in its process, and goes on after /clear, by which a session ends and another begins. What is
    remembered is not stored: a session that begins behind a restart has a hole that is none. Belongs to one thread.
    """

    def __init__(self, most_sessions: int = _MOST_SESSIONS) -> None:
        """Remembers at most so many sessions; the one idle for longest goes first."""
        self._most_sessions = most_sessions
        self._sessions: OrderedDict[_Session, _End] = OrderedDict()
        self._ends: dict[_End, _Session] = {}

    def ranges(self, sequence: Iterable[SequenceNumber], principal: str) -> list[audit_pb2.SessionNumbers]:
        """The ranges of an export, each session's from 1 where it goes on. Nothing is remembered yet."""
        numbers = list(sequence)
        ranges = list(numbers_of(numbers))
        counted_by = _counted_by(numbers)
        if counted_by:
            here = {_end(one, counted_by, principal, one.last) for one in ranges}
            for _, runs in groupby(ranges, key=lambda one: (one.session_id, one.stream)):
                run = next(runs)
                before = _end(run, counted_by, principal, run.first - 1)
                is_new = (principal, run.session_id, run.stream) not in self._sessions
                if is_new and before[1] and (before in here or before in self._ends):
                    run.first = 1
        return ranges

    def remember(self, sequence: Iterable[SequenceNumber], principal: str) -> None:
        """Remembers the numbers of an export, once they are safe."""
        numbers = list(sequence)
        counted_by = _counted_by(numbers)
        for one in numbers_of(numbers) if counted_by else ():
            session, end = (principal, one.session_id, one.stream), _end(one, counted_by, principal, one.last)
            before = self._forget(session)
            self._sessions[session] = end = max(end, before or end)
            self._ends[end] = session
        while len(self._sessions) > self._most_sessions:
            self._forget(next(iter(self._sessions)))

    def _forget(self, session: _Session) -> _End | None:
        end = self._sessions.pop(session, None)
        if end is not None and self._ends.get(end) == session:
            del self._ends[end]
        return end


def _counted_by(numbers: Iterable[SequenceNumber]) -> dict[str, str]:
    """Who counts the events of each session, as far as it is told."""
    return {one.session_id: one.counted_by for one in numbers if one.counted_by}


def _end(one: audit_pb2.SessionNumbers, counted_by: dict[str, str], principal: str, number: int) -> _End:
    return principal, counted_by.get(one.session_id, ""), one.stream, number
