"""onrecord.gateway.v1.ApprovalService: what waits for an answer, and who may answer."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2 as pb
from onrecord.gateway.v1 import approvals_pb2_grpc

from gateway_svc import errors
from gateway_svc.loop.answers import Answer, Answers, Pending
from service_kit.access.callers import caller_name, current_caller
from service_kit.access.roles import Role
from service_kit.errors import PermissionDenied
from service_kit.paging import decode_token, encode_token, in_parts, page_size

MAX_REASON_BYTES = 4096
"""Of an answer's reason, which is remembered with it."""
MAX_WATCHES = 100
ALIVE_SECONDS = 14.0

Context = grpc.aio.ServicerContext[Any, Any]


class ApprovalServicer(approvals_pb2_grpc.ApprovalServiceServicer):
    """The proto says what each RPC does and how it fails."""

    def __init__(self, answers: Answers, *, by_others: bool = False) -> None:
        """`by_others` says that nobody may answer the calls of their own turns."""
        self._answers = answers
        self._by_others = by_others
        self._watches = 0
        self._ending = False

    async def AnswerToolCall(self, request: pb.AnswerToolCallRequest, context: Context) -> pb.AnswerToolCallResponse:  # noqa: N802 - the names of RPCs are the proto's
        """Allows or refuses a waiting tool call."""
        if not request.tool_call_id:
            raise errors.InvalidRequest("tool_call_id is empty: name the call", "tool_call_id")
        if request.verdict not in (common_pb2.VERDICT_ALLOWED, common_pb2.VERDICT_DENIED):
            raise errors.InvalidRequest(
                "verdict is neither VERDICT_ALLOWED nor VERDICT_DENIED: the call waits on", "verdict"
            )
        if len(request.reason.encode()) > MAX_REASON_BYTES:
            raise errors.InvalidRequest(f"reason is longer than {MAX_REASON_BYTES} bytes", "reason")
        self._check_may_answer(self._answers.find(request.tool_call_id))
        caller = current_caller()
        answer = Answer(request.verdict == common_pb2.VERDICT_ALLOWED, request.reason, caller.name if caller else "")
        self._answers.give(request.tool_call_id, answer, caller_name(), request.args_digest.hmac_sha256)
        return pb.AnswerToolCallResponse()

    async def ListPendingToolCalls(  # noqa: N802
        self, request: pb.ListPendingToolCallsRequest, context: Context
    ) -> pb.ListPendingToolCallsResponse:
        """A page of the calls that wait."""
        size = page_size(request.page_size)
        after = decode_token(request.page_token, _fingerprint(request), (int, str)) if request.page_token else (0, "")
        # By time and id, and not by a place: calls cease to wait between two pages.
        waiting = sorted(self._visible(request.filter), key=_key)
        rest = [pending for pending in waiting if _key(pending) > after][: size + 1]
        return page_of(request, [pb.ListPendingToolCallsResponse(tool_calls=map(_message, rest))])

    async def WatchPendingToolCalls(  # noqa: N802
        self, request: pb.WatchPendingToolCallsRequest, context: Context
    ) -> AsyncGenerator[pb.WatchPendingToolCallsResponse, None]:
        """What begins to wait, and what waits no more."""
        if self._watches >= MAX_WATCHES:
            raise errors.Overloaded(f"{MAX_WATCHES} callers watch already: end one of them")
        self._watches += 1
        known: dict[str, Pending] = {}
        is_due = True
        try:
            while not self._ending:
                changed = self._answers.changed
                now = {pending.intent.id: pending for pending in self._visible(request.filter)}
                added = list(in_parts(_message(pending) for call_id, pending in now.items() if call_id not in known))
                gone = known.keys() - now.keys()
                if added or gone or is_due:
                    yield pb.WatchPendingToolCallsResponse(added=added[0] if added else (), gone_ids=gone)
                for part in added[1:]:
                    yield pb.WatchPendingToolCallsResponse(added=part)
                known, is_due = now, True
                with suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE_SECONDS):
                        await changed.wait()
                        is_due = False
            raise errors.ShuttingDown("the gateway is shutting down")
        finally:
            self._watches -= 1

    def begin_drain(self) -> None:
        """Ends all watches."""
        self._ending = True
        self._answers.tell()

    def _visible(self, wanted: pb.PendingToolCallFilter) -> Iterator[Pending]:
        caller = current_caller()
        sees_all = caller is None or bool(caller.roles & {Role.APPROVER, Role.ADMIN})
        for pending in self._answers.waiting:
            row = pending.intent
            if (
                (sees_all or (caller is not None and pending.owner in ("", caller.name)))
                and wanted.session_id in ("", row.session_id)
                and wanted.tool_name in ("", row.tool_name)
                and wanted.principal in ("", row.principal)
            ):
                yield pending

    def _check_may_answer(self, pending: Pending) -> None:
        """Raises PermissionDenied if who calls may not decide on a call."""
        caller = current_caller()
        if caller is None:
            return
        if self._by_others and caller.name == pending.intent.principal:
            raise PermissionDenied("this deployment wants another caller than the turn's own to answer")
        if Role.APPROVER not in caller.roles and (self._by_others or pending.owner not in ("", caller.name)):
            raise PermissionDenied("to answer another's tool call takes the role approver")


def page_of(
    request: pb.ListPendingToolCallsRequest, pages: Sequence[pb.ListPendingToolCallsResponse]
) -> pb.ListPendingToolCallsResponse:
    """The page that a request asks for, of pages that each have the first calls of somebody behind its token."""
    size, cut = page_size(request.page_size), [page for page in pages if page.next_page_token]
    waiting = sorted((call for page in pages for call in page.tool_calls), key=_key_of)
    if cut:  # behind the end of a page that is cut there may be calls that are not known here
        last = min(_key_of(page.tool_calls[-1]) for page in cut)
        waiting = [call for call in waiting if _key_of(call) <= last]
    page = next(in_parts(waiting[:size]), [])
    more = bool(cut) or len(waiting) > len(page)
    token = encode_token(_key_of(page[-1]), _fingerprint(request)) if more else ""
    return pb.ListPendingToolCallsResponse(tool_calls=page, next_page_token=token)


def _fingerprint(request: pb.ListPendingToolCallsRequest) -> bytes:
    return b"pending" + request.filter.SerializeToString()


def _key_of(call: pb.PendingToolCall) -> tuple[int, str]:
    return call.asked_at_ms, call.tool_call_id


def _key(pending: Pending) -> tuple[int, str]:
    return pending.asked_at_ms, pending.intent.id


def _message(pending: Pending) -> pb.PendingToolCall:
    row = pending.intent
    return pb.PendingToolCall(
        tool_call_id=row.id,
        session_id=row.session_id,
        turn_id=row.turn_id,
        engine=row.engine,
        model=row.model,
        tool_name=row.tool_name,
        args_summary=row.args_summary,
        args_digest=row.args_digest if row.HasField("args_digest") else None,
        principal=row.principal,
        on_behalf_of=row.on_behalf_of,
        agent=row.agent if row.HasField("agent") else None,
        rule=row.decision.rule,
        reason=row.decision.reason,
        asked_at_ms=pending.asked_at_ms,
        expires_at_ms=pending.expires_at_ms,
    )
