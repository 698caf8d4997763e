"""Who calls: the name that a call is known by, in logs and in the ledger's list of queries."""

from contextvars import ContextVar
from dataclasses import dataclass

import structlog

from service_kit.access.roles import Role

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is from, once it is known."""

    name: str
    roles: frozenset[Role]

    def may_produce(self, producer_id: str) -> bool:
        """Whether rows may come under producer_id: the caller's own name, or that name, a slash and anything."""
        return Role.PRODUCER in self.roles and (producer_id == self.name or producer_id.startswith(f"{self.name}/"))


_CURRENT: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current_caller() -> Caller | None:
    """Who the call that is being answered is from; None where everybody may do everything."""
    return _CURRENT.get()


def enter(caller: Caller) -> None:
    """Makes caller the one whose call this task answers, and whom the lines of its log name."""
    _CURRENT.set(caller)
    structlog.contextvars.bind_contextvars(caller=caller.name)


def caller_name() -> str:
    """The name that the list of callers gives to who calls; ANONYMOUS for whom it does not know, or without a list.

    Never a name out of a certificate that the list does not have: it may be another caller's.
    """
    caller = _CURRENT.get()
    return caller.name if caller else ANONYMOUS
