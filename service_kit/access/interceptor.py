"""Who may call what: each RPC has its roles, each caller its own, and what has no rule is allowed to nobody."""

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from grpc_reflection.v1alpha import reflection

from recording.channel.watched import Watched
from service_kit.access.callers import Caller, enter
from service_kit.access.peer import certificate_names
from service_kit.access.roles import Callers, Entry, Role
from service_kit.errors import PermissionDenied, Unauthenticated
from service_kit.handlers import HEALTH, CallDetails, Context, Handler, HandlerInterceptor, rebuild

log = structlog.get_logger(__name__)

Rules = Mapping[str, frozenset[Role]]
"""The roles that may call an RPC, by its full name: /package.Service/Method."""

_REFLECTION = f"/{reflection.SERVICE_NAME}/"
_BEARER = "bearer "


def rules_for(service: str, roles: Mapping[str, frozenset[Role]]) -> Rules:
    """The rules of the service with that full name, from the roles by the bare names of its RPCs."""
    return {f"/{service}/{method}": allowed for method, allowed in roles.items()}


class AccessInterceptor(HandlerInterceptor):
    """Lets a call in when one of its caller's roles may make it. Health is open, and reflection is for every role.

    A stream is looked at again at each message once the file has changed, so that a caller that was taken off the
    list hears and says nothing more.
    """

    def __init__(self, rules: Rules, callers: Watched[Callers]) -> None:
        self._rules = rules
        self._callers = callers

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Puts the check in front of the handler."""
        method = details.method
        if method.startswith(HEALTH):
            return handler
        reads_stream = bool(handler.request_streaming)

        def around(behaviour: Callable[..., Any]) -> Callable[..., Any]:
            if inspect.isasyncgenfunction(behaviour):

                async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
                    call = _GuardedCall(self, method, context)
                    checked = call.requests(request) if reads_stream else request
                    async with contextlib.aclosing(behaviour(checked, context)) as responses:
                        async for response in responses:
                            call.check()
                            yield response

                return stream

            async def single(request: Any, context: Context) -> Any:
                call = _GuardedCall(self, method, context)
                return await behaviour(call.requests(request) if reads_stream else request, context)

            return single

        return rebuild(handler, around)

    def admit(
        self, method: str, shown: Sequence[str], names: Callable[[], Sequence[str]] = tuple
    ) -> tuple[Entry, Callers]:
        """Who calls, and the list that said so. From here on the log names it, whether or not it is let in.

        Args:
            method: the RPC, /package.Service/Method.
            shown: what the call has under the name `authorization`.
            names: the names in the certificate of the call's peer; asked for where nothing is shown.

        Raises:
            Unauthenticated: nobody that the list knows.
            PermissionDenied: somebody without a role for method.
        """
        callers = self._callers.current()
        entry = _identify(callers, shown, names)
        enter(Caller(entry.name, entry.roles))
        allowed = frozenset(Role) if method.startswith(_REFLECTION) else self._rules.get(method, frozenset())
        if not entry.roles & allowed:
            log.warning("rpc.denied", method=method)
            needed = " or ".join(sorted(allowed)) or "a role that nobody can have"
            raise PermissionDenied(f"{entry.name!r} may not call {method}: it takes the role {needed}")
        return entry, callers

    def is_current(self, callers: Callers) -> bool:
        """Whether the list is still the one in the file."""
        return callers is self._callers.current()


class _GuardedCall:
    """One call of one caller."""

    def __init__(self, access: AccessInterceptor, method: str, context: Context) -> None:
        self._access = access
        self._method = method
        self._context = context
        self._admit()

    def check(self) -> None:
        """Raises as AccessInterceptor.admit() if the caller may no longer continue."""
        if self._entry.has_expired() or not self._access.is_current(self._callers):
            self._admit()

    async def requests(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The messages of a stream, with a check before each."""
        async for request in requests:
            self.check()
            yield request

    def _admit(self) -> None:
        metadata = self._context.invocation_metadata() or ()
        shown = [
            value if isinstance(value, str) else value.decode(errors="replace")
            for key, value in metadata
            if key == "authorization"
        ]
        names = partial(certificate_names, self._context)
        self._entry, self._callers = self._access.admit(self._method, shown, names)


def _identify(callers: Callers, shown: Sequence[str], certificate: Callable[[], Sequence[str]]) -> Entry:
    if len(shown) > 1:
        raise Unauthenticated("more than one authorization metadata came: send one")  # who is in between reads another
    for text in shown:
        if not text.lower().startswith(_BEARER):
            raise Unauthenticated("the authorization metadata must be `Bearer` and a token")
        if entry := callers.by_token(text[len(_BEARER) :].strip()):
            return entry
        raise Unauthenticated("the token is not known here, or has expired: ask the operator for a new one")
    names = certificate()
    if entry := callers.by_certificate(names):
        return entry
    if names:
        raise Unauthenticated(
            "the certificate's names are not on the list of callers: send a token, or have them added"
        )
    raise Unauthenticated("no token came: send the metadata `authorization: Bearer TOKEN`")
