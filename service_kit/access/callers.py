"""Who calls: the name that a call is known by, in logs and in the ledger's list of queries."""

from contextvars import ContextVar
from dataclasses import dataclass

import structlog

from service_kit.access.roles import Role
from service_kit.handlers import Context

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


def caller_name(context: Context) -> str:
    """The caller's name; the common name of its certificate where names are not asked for; else ANONYMOUS.

    Not for a call that has ended: grpcio's auth_context() then reads memory that is no longer its own.
    """
    if caller := _CURRENT.get():
        return caller.name
    for name in context.auth_context().get("x509_common_name", []):
        return name.decode(errors="replace")
    return ANONYMOUS
