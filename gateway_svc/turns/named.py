"""Requests that name themselves by a request_id: each begins one turn, however often it is sent, to whichever gateway.

This gateway remembers those of its own in a file (requests.py). Where gateways share sessions they claim a request
before anything of it runs.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from google.rpc import status_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.session import may_see
from gateway_svc.conversations.undisturbed import to_its_end
from gateway_svc.errors import Busy, Interrupted, StoreUnavailable
from gateway_svc.turns.account import Totals
from gateway_svc.turns.events import accepted, now_ms, turn_finished
from gateway_svc.turns.kept import KeptTurn
from gateway_svc.turns.keyed_locks import KeyedLocks
from gateway_svc.turns.requests import Request, Requests, digest_of


class Claims(Protocol):
    """The requests of all gateways that share sessions."""

    async def claim(self, caller: str, request_id: str, digest: str) -> Request | None:
        """Makes a request this gateway's own, and returns None, or the one of before, whose turn has ended.

        One whose gateway is gone has ended, without a last event. A claim is to be ended by release() or ended().

        Raises:
            AlreadyExists: the request_id stands for another request of the caller.
            Busy: its turn runs at another gateway, or is about to begin.
            StoreUnavailable: it cannot be claimed now.
        """
        ...

    async def of_gone(self, turn_id: str) -> Request | None:
        """The request of a turn whose gateway is gone.

        Raises:
            StoreUnavailable: it cannot be looked for now.
        """
        ...

    async def begun(self, request: Request) -> None:
        """Returns when all gateways know that the request has its turn, which may begin.

        Raises:
            Busy: another gateway has claimed the request meanwhile.
            StoreUnavailable: they cannot be told.
        """
        ...

    def ended(self, request: Request) -> None:
        """The request's turn has ended; the others are told soon."""
        ...

    async def release(self, caller: str, request_id: str) -> None:
        """Nothing of the request runs: it may be sent again, to any gateway. Does nothing if it is not claimed here."""
        ...


class Unshared:
    """The claims of a gateway that shares its sessions with no other: it has them all."""

    async def claim(self, caller: str, request_id: str, digest: str) -> Request | None:
        """See Claims."""
        return None

    async def of_gone(self, turn_id: str) -> Request | None:
        """See Claims."""
        return None

    async def begun(self, request: Request) -> None:
        """See Claims."""

    def ended(self, request: Request) -> None:
        """See Claims."""

    async def release(self, caller: str, request_id: str) -> None:
        """See Claims."""


class NamedRequests:
    """The requests with a request_id, as turns begin and end by them."""

    def __init__(
        self, own: Requests, claims: Claims | None, status_of: Callable[[BaseException], status_pb2.Status]
    ) -> None:
        """`status_of` says what a client is told of an error."""
        self._own = own
        self._claims = claims or Unshared()
        self._status_of = status_of
        self._equal = KeyedLocks()

    def in_turn(self, owner: str, request: pb.RunTurnRequest) -> AbstractAsyncContextManager[None]:
        """One of equal requests at a time: the others must find what the first has begun."""
        return self._equal.hold((owner, request.request_id or object()))

    def find(self, owner: str, request: pb.RunTurnRequest) -> Request | None:
        """The earlier request that this one repeats here; see Requests.find()."""
        return self._own.find(owner, request) if request.request_id else None

    def knows(self, owner: str, request: pb.RunTurnRequest) -> bool:
        """Whether a request of the caller owner under this request_id, equal or not, is remembered here."""
        return self._own.knows(owner, request.request_id)

    def of_turn(self, turn_id: str, viewer: str | None) -> Request | None:
        """The request of a turn that an earlier process of this gateway ran, and that viewer may know of."""
        known = self._own.of_turn(turn_id)
        return known if known is not None and may_see(known.caller, viewer) else None

    async def of_gone(self, turn_id: str, viewer: str | None) -> Request | None:
        """The request of a turn whose gateway is gone, and that viewer may know of. Raises as Claims.of_gone()."""
        known = await self._claims.of_gone(turn_id)
        return known if known is not None and may_see(known.caller, viewer) else None

    @asynccontextmanager
    async def claimed(self, owner: str, request: pb.RunTurnRequest) -> AsyncIterator[Request | None]:
        """Within it the request may begin its turn here, unless it yields the one of another gateway that has ended.

        When the body raises, nothing of it runs. Raises as Claims.claim().
        """
        try:
            yield (
                await self._claims.claim(owner, request.request_id, digest_of(request)) if request.request_id else None
            )
        except BaseException:
            if request.request_id:
                await to_its_end(self._claims.release(owner, request.request_id))
            raise

    def begin(self, owner: str, request: pb.RunTurnRequest, turn: KeptTurn) -> Request | None:
        """Remembers a request that begins a turn, if it names itself."""
        return self._own.begin(owner, request, turn) if request.request_id else None

    async def keep(self, request: Request) -> None:
        """Returns when the request would be known after a crash, to all who may be sent it again.

        Raises:
            Busy: another gateway has taken it over.
            StoreUnavailable: it cannot be written.
        """
        try:
            await self._claims.begun(request)
            await self._own.write(request)
        except (Busy, StoreUnavailable):
            self._own.forget(request)
            await self._claims.release(*request.key)
            raise

    def end(self, turn: KeptTurn, finished: pb.TurnEvent) -> None:
        """The turn has ended, by its last event."""
        if (known := self._own.end(turn, finished)) is not None:
            self._claims.ended(known)

    def told_again(self, known: Request, after: int = 0) -> Iterator[pb.TurnEvent]:
        """The first and the last event of a turn that nobody keeps any more, if they come after `after`."""
        if after < 1:
            yield accepted(known.session_id, known.turn_id, known.accepted_ms)
        if known.finished is not None:
            finished = pb.TurnEvent.FromString(known.finished)
            if finished.sequence > after:
                yield finished
            return
        error = Interrupted(
            "the gateway ended in the middle of this turn: look at what it did, and go on with a new request_id"
        )
        finished = turn_finished(pb.STOP_REASON_FAILED, Totals(), 0, self._status_of(error))
        finished.sequence, finished.at_ms = max(1, after) + 1, now_ms()
        yield finished

    def close(self) -> None:
        """Closes the file."""
        self._own.close()
