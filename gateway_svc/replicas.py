"""What gateways that share sessions ask each other: to cancel a turn, to answer a tool call, which calls wait.

A call that this gateway knows nothing of is passed on to the others, each of which answers it as the caller's own.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.approvals import ApprovalServicer, page_of
from gateway_svc.conversations.postgres.calls import Answer, Call, Calls
from gateway_svc.errors import NotFound
from gateway_svc.servicer import APPROVALS, GATEWAY, GatewayServicer, status_of
from service_kit.access.callers import Caller, current_caller, enter
from service_kit.access.roles import Role
from service_kit.handlers import CallDetails, Context, Handler, HandlerInterceptor

CANCEL, ANSWER = f"/{GATEWAY}/CancelTurn", f"/{APPROVALS}/AnswerToolCall"
LIST = f"/{APPROVALS}/ListPendingToolCalls"

Local = Callable[[Any, Any], Awaitable[Any]]


class ReplicasInterceptor(HandlerInterceptor):
    """Passes on what other gateways may know. It goes behind all other interceptors."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Puts the question to the others behind the handler."""
        method = details.method
        if method not in (CANCEL, ANSWER, LIST):
            return handler

        local: Any = handler.unary_unary

        async def first(request: Any, context: Context) -> Any:
            try:
                return await local(request, context)
            except NotFound as error:
                unknown = error
            answers = await self._calls.ask(_call(method, request), _knows)
            known = next((answer for answer in answers if _knows(answer)), None)
            if known is None:
                raise unknown
            response = pb.CancelTurnResponse if method == CANCEL else approvals_pb2.AnswerToolCallResponse
            return await _told(known, response, context)

        async def listed(request: Any, context: Context) -> Any:
            pages = [await local(request, context)]  # first, since it refuses what is wrong with the request
            answers = await self._calls.ask(_call(method, request), lambda answer: answer.response is None)
            page = approvals_pb2.ListPendingToolCallsResponse
            pages += [await _told(answer, page, context) for answer in answers]
            return page_of(request, pages)

        made: Handler = grpc.unary_unary_rpc_method_handler(
            listed if method == LIST else first,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made


def answering(gateway: GatewayServicer, approvals: ApprovalServicer) -> Callable[[Call], Awaitable[Answer]]:
    """Answers calls that other gateways pass on."""
    methods: Mapping[str, tuple[Any, Local]] = {
        CANCEL: (pb.CancelTurnRequest, gateway.CancelTurn),
        ANSWER: (approvals_pb2.AnswerToolCallRequest, approvals.AnswerToolCall),
        LIST: (approvals_pb2.ListPendingToolCallsRequest, approvals.ListPendingToolCalls),
    }

    async def answer(call: Call) -> Answer:  # in a task of its own, with a context of its own
        try:
            request, behaviour = methods[call.method]
            if call.caller:
                told = json.loads(call.caller)
                enter(Caller(told["name"], frozenset(map(Role, told["roles"]))))
            response = await behaviour(request.FromString(call.request), None)
        except Exception as error:  # noqa: BLE001 - whatever it is, who asks is told
            return Answer(None, status_of(error).SerializeToString())
        return Answer(response.SerializeToString(), None)

    return answer


def _call(method: str, request: Any) -> Call:
    caller = current_caller()
    told = json.dumps({"name": caller.name, "roles": sorted(caller.roles)}) if caller else ""
    return Call(method, request.SerializeToString(), told)


def _knows(answer: Answer) -> bool:
    return answer.status is None or status_pb2.Status.FromString(answer.status).code != code_pb2.NOT_FOUND


async def _told(answer: Answer, response: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """The response of another gateway, or the status that it ended the call with."""
    if answer.status is not None:
        await context.abort_with_status(rpc_status.to_status(status_pb2.Status.FromString(answer.status)))
    return response.FromString(answer.response)
