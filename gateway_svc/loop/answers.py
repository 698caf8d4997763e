"""Tool calls that wait for a decision, and the decisions of the last hour."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog
from onrecord.audit.v1 import audit_pb2

from gateway_svc.errors import AlreadyExists, DigestMismatch, NotFound, PolicyChanged

REMEMBERED_SECONDS = 3600.0
MAX_REMEMBERED = 10_000
"""Answers that are remembered; of more the oldest are forgotten first."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision on a tool call."""

    allow: bool
    reason: str = ""
    """A person's words, for the model and, redacted, for the record; the log does not have them."""
    by: str = ""
    """The authenticated name of who answered; empty where callers have no names."""
    at_ms: int = 0
    """When the answer came, in milliseconds since 1970-01-01 UTC."""


OVERTAKEN = Answer(allow=False, reason="The rules changed while the call waited: make it again if it is still needed.")
"""Nobody's: of a call that somebody allowed under other rules than those in force."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A call that waits for its answer."""

    intent: audit_pb2.AuditRow
    """What is known of the call."""
    owner: str
    """The caller whose session it is; empty where callers have no names."""
    seconds: float
    """How long it waits at most."""
    asked_at_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    """In milliseconds since 1970-01-01 UTC."""
    future: "asyncio.Future[Answer]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def expires_at_ms(self) -> int:
        """When it is refused, for people: milliseconds since 1970-01-01 UTC."""
        return self.asked_at_ms + round(self.seconds * 1000)

    async def answer(self) -> Answer | None:
        """The answer; None if none comes in time, which counts as a refusal."""
        try:
            async with asyncio.timeout(self.seconds):
                return await self.future
        except TimeoutError:
            log.info("tool_call.not_answered", tool_call_id=self.intent.id, seconds=self.seconds)
            return None


@dataclass(frozen=True, slots=True)
class _Given:
    """An answer that was taken; `until` by the monotonic clock how long it is remembered."""

    pending: Pending
    answer: Answer
    by: str
    until: float


class Answers:
    """Delivers an answer to the call that waits for it."""

    def __init__(self, seconds: float) -> None:
        """Waits at most `seconds` for each answer."""
        self.seconds = seconds
        self.policy_digest: Callable[[], str] | None = None
        """Tells the digest of the rules in force; None where there are no rules."""
        self.changed = asyncio.Event()
        """Set when a call begins to wait or waits no more; another event is then in its place."""
        self._waiting: dict[str, Pending] = {}
        self._given: dict[str, _Given] = {}
        """In the order in which they came."""

    @property
    def waiting(self) -> list[Pending]:
        """The calls that wait, the oldest first."""
        return [pending for pending in self._waiting.values() if not pending.future.done()]

    @contextmanager
    def expect(self, intent: audit_pb2.AuditRow, owner: str) -> Iterator[Pending]:
        """The call of an intent waits within the context."""
        pending = self._waiting[intent.id] = Pending(intent, owner, self.seconds)
        self.tell()
        try:
            yield pending
        finally:
            del self._waiting[intent.id]
            self.tell()

    def find(self, call_id: str) -> Pending:
        """The call with this id, which waits or was answered within the last hour.

        Raises:
            NotFound: there is none.
        """
        self._forget_old()
        if given := self._given.get(call_id):
            return given.pending
        pending = self._waiting.get(call_id)
        if pending is None or pending.future.done():
            raise NotFound(f"no tool call with the id {call_id!r} waits for an answer", "tool_call", call_id)
        return pending

    def give(self, call_id: str, answer: Answer, by: str = "", digest: bytes = b"") -> None:
        """Answers a call; the same answer again by the same caller `by` changes nothing.

        digest: of the arguments that were decided on; empty where a refusal is for whatever they are.

        Raises:
            AlreadyExists: the call was answered otherwise, or by somebody else.
            DigestMismatch: the call has other arguments.
            PolicyChanged: it allows a call that was asked about under other rules, and which is now refused.
            NotFound: no call with this id waits, and none was answered within the last hour.
        """
        pending = self.find(call_id)
        if digest != pending.intent.args_digest.hmac_sha256 and (digest or answer.allow):
            raise DigestMismatch(
                "args_digest is not that of the call's arguments: look at what waits, and answer that",
                "tool_call",
                call_id,
            )
        if given := self._given.get(call_id):
            if (given.answer, given.by) != (answer, by):
                raise AlreadyExists("the tool call was answered otherwise, or by another caller", "tool_call", call_id)
            return
        if answer.allow and self.policy_digest and self.policy_digest() != pending.intent.decision.policy_digest:
            pending.future.set_result(OVERTAKEN)
            self.tell()
            raise PolicyChanged("the rules changed since the call was asked about: it is refused", "tool_call", call_id)
        pending.future.set_result(replace(answer, at_ms=time.time_ns() // 1_000_000))
        log.info("tool_call.answered", tool_call_id=call_id, allowed=answer.allow, answered_by=by)
        self._given[call_id] = _Given(pending, answer, by, time.monotonic() + REMEMBERED_SECONDS)
        self.tell()

    def tell(self) -> None:
        """Has those who watch look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def _forget_old(self) -> None:
        now = time.monotonic()
        while self._given:
            call_id, oldest = next(iter(self._given.items()))
            if oldest.until > now and len(self._given) < MAX_REMEMBERED:
                return
            del self._given[call_id]
