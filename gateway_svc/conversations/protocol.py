"""What a home of conversations does; turns ask for nothing that only one of them could do."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from gateway_svc.conversations.memory import History
from gateway_svc.conversations.said import Place, SaidPage
from gateway_svc.conversations.session import SessionPage, SessionState
from gateway_svc.messages import Message

if TYPE_CHECKING:
    from gateway_svc.conversations.postgres.calls import Calls
    from gateway_svc.stopping.kept import SharedStops
    from gateway_svc.turns.budgets import Spent
    from gateway_svc.turns.named import Claims


class Lease(Protocol):
    """A session that nobody else can change until close(), or until the process is gone. It belongs to one loop."""

    state: SessionState
    history: History

    def append(self, message: Message) -> None:
        """Adds a message to the conversation. It survives the end of this process after kept(), and a power cut after
        save().

        Raises:
            StoreUnavailable: it cannot be kept, and is not in the history.
        """
        ...

    def note_sums(self) -> None:
        """Keeps the state's sums as its next revision, without the rest of it.

        Raises:
            StoreUnavailable: they cannot be kept.
        """
        ...

    async def kept(self) -> None:
        """Returns when what was appended and noted so far would survive the end of this process.

        Raises:
            StoreUnavailable: it would not, and nothing more is kept under this lease.
        """
        ...

    async def save(self) -> None:
        """Keeps the state as its next revision, with all that was appended; whoever comes next finds both.

        Raises:
            StoreUnavailable: it cannot be kept; what is kept is that of before.
        """
        ...

    async def close(self) -> None:
        """Lets others have the session."""
        ...


class Conversations(Protocol):
    """The sessions of all gateways that share this home."""

    calls: "Calls | None"
    """Between the gateways that share it; None where they cannot call each other."""
    requests: "Claims | None"
    """Those that one of the gateways that share it runs; None where each knows its own."""

    stops: "SharedStops | None"
    """Of all gateways that share it; None where each keeps its own."""

    spending: "Spent | None"
    """What labels have spent at all gateways that share it; None where each state directory has its own."""

    def start(self) -> None:
        """Begins what the home does beside calls. It belongs to the loop that it is started in, or used in first."""
        ...

    async def create(self, state: SessionState, *, synced: bool) -> None:
        """Keeps a new session under its id and its owner. synced: whether it must survive a power cut.

        Raises:
            StoreUnavailable: it cannot be kept.
        """
        ...

    async def open(self, session_id: str) -> Lease:
        """Takes the lease of a session. Whoever is cancelled meanwhile has it not.

        Raises:
            NotFound: there is no such session.
            Busy: somebody else has the lease.
            KeyMissing: a key that it is encrypted by is not there.
            Damaged: what the session is cannot be read.
        """
        ...

    async def state(self, session_id: str, viewer: str | None) -> SessionState:
        """What a session is, as it was saved last. One that says that a turn runs, while nobody has its lease, has
        failed. `viewer` is the caller who asks; None: somebody who may see all sessions.

        Raises:
            NotFound: there is no such session, or none that viewer may know of.
            Damaged: what the session is cannot be read.
        """
        ...

    async def read_said(self, session_id: str, owner: str, after: Place, size: int) -> SaidPage:
        """At most `size` messages of a session of owner's, fewer where they take more than
        service_kit.paging.MAX_PAGE_BYTES; what a running turn has said so far is among them.

        Raises:
            InvalidRequest: the id is empty.
            NotFound: there is no such session, or none of owner's.
            StoreUnavailable: it cannot be read.
        """
        ...

    async def list_page(self, size: int, before: str | None, viewer: str | None) -> SessionPage:
        """At most `size` sessions that viewer may see, without their prompts, by falling id, below the id `before`.

        Fewer where they take more than service_kit.paging.MAX_PAGE_BYTES. One that cannot be read is left out, and
        logged.
        """
        ...

    async def remove(self, session_id: str) -> None:
        """Removes a session and all that was said in it.

        Raises:
            NotFound, Busy: as open().
            StoreUnavailable: it could not be removed as a whole; try again.
        """
        ...

    async def rewrite(self, session_id: str) -> None:
        """Writes a session anew, under the key that encrypts now, or in clear where none does.

        Raises:
            NotFound, Busy, KeyMissing, Damaged: as open().
            StoreUnavailable: it could not be written as a whole; try again.
        """
        ...

    async def keys_in_use(self) -> list[str]:
        """The ids of the keys that running gateways encrypt by, without the one that encrypts here.

        Raises:
            StoreUnavailable: it cannot be known now.
        """
        ...

    async def all_rewritten(self) -> list[str]:
        """Says that rewrite() has been done with all sessions that there are: no other key is needed any more, but
        those that running gateways encrypt by, whose ids it returns.

        Raises:
            StoreUnavailable: that cannot be kept.
        """
        ...

    async def abandoned(self) -> list[str]:
        """The ids of sessions whose holder is gone without having closed them."""
        ...

    def unused_since(self, updated_ms: int) -> AsyncIterator[str]:
        """The ids of sessions that were last saved before a time in milliseconds since 1970-01-01 UTC, by rising id."""
        ...

    async def trouble(self) -> str:
        """Why no session can be used now; empty if they can."""
        ...

    def hurry(self) -> None:
        """The process ends: what does not answer is not waited for as long as a turn that runs waits."""
        ...

    async def aclose(self) -> None:
        """Lets go what the home has open."""
        ...
