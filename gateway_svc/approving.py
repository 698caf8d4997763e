"""The commands approvals, approve and deny: for people who answer calls of other people's agents."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2 as pb
from onrecord.gateway.v1 import approvals_pb2_grpc

from gateway_svc.terminal.calling import (
    DEFAULT_TARGET,
    GRPC_TIMEOUT_SECONDS,
    Json,
    Target,
    call_gateway,
    err,
    out,
    print_json,
)
from recording.channel.token import Metadata
from service_kit.printable import printable
from service_kit.terminal.command import Argument, Option
from service_kit.terminal.failures import Failed
from service_kit.terminal.ids import too_short, whole_id
from service_kit.terminal.messages import set_fields
from service_kit.terminal.printing import print_fields

CallId = Annotated[str, Argument(metavar="ID", help="The id that `approvals` shows, or its first or last characters.")]


def approvals(
    watch: Annotated[bool, Option("--watch", help="Go on until interrupted, and print what begins to wait.")] = False,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """List the tool calls that wait for somebody's answer."""

    async def show(stub: Any, metadata: Metadata) -> int:
        found = 0
        async for call in (_watched if watch else _listed)(stub, metadata):
            found += 1
            print_json(call) if as_json else out.print(_line(call))
        return found

    if not call_gateway(target, show, approvals_pb2_grpc.ApprovalServiceStub):
        err.print("no tool call waits for an answer", style="yellow")


def approve(
    call_id: CallId,
    reason: Annotated[str, Option(help="Why; kept on the call's row.")] = "",
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Let a waiting tool call run, with the arguments that it shows now and no others."""
    _answer(call_id, common_pb2.VERDICT_ALLOWED, reason, target, as_json=as_json)


def deny(
    call_id: CallId,
    reason: Annotated[str, Option(help="Why; told to the model, and kept on the call's row.")],
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Refuse a waiting tool call."""
    _answer(call_id, common_pb2.VERDICT_DENIED, reason, target, as_json=as_json)


def _answer(call_id: str, verdict: common_pb2.Verdict.ValueType, reason: str, target: str, *, as_json: bool) -> None:
    async def answer(stub: Any, metadata: Metadata) -> pb.PendingToolCall | None:
        waiting = {call.tool_call_id: call async for call in _listed(stub, metadata)}
        call = waiting.get(whole_id(call_id, list(waiting), "ID"))
        if call:
            request = pb.AnswerToolCallRequest(
                tool_call_id=call.tool_call_id, verdict=verdict, reason=reason, args_digest=call.args_digest
            )
            await stub.AnswerToolCall(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)
        return call

    call = call_gateway(target, answer, approvals_pb2_grpc.ApprovalServiceStub)
    if call is None:
        raise Failed(f"no tool call {call_id} waits for an answer: `approvals` lists those that do{too_short(call_id)}")
    said = "allowed" if verdict == common_pb2.VERDICT_ALLOWED else "denied"
    if as_json:
        print_fields({"verdict": said, "reason": reason, "tool_call": set_fields(call)})
    else:
        out.print(f"{said}: {_line(call)}")


async def _listed(stub: Any, metadata: Metadata) -> AsyncIterator[pb.PendingToolCall]:
    request = pb.ListPendingToolCallsRequest(page_size=1000)
    while True:
        page = await stub.ListPendingToolCalls(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)
        for call in page.tool_calls:
            yield call
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def _watched(stub: Any, metadata: Metadata) -> AsyncIterator[pb.PendingToolCall]:
    async for response in stub.WatchPendingToolCalls(pb.WatchPendingToolCallsRequest(), metadata=metadata):
        for call in response.added:
            yield call


def _line(call: pb.PendingToolCall) -> str:
    who = f"{call.principal or '-'}" + (f" for {call.on_behalf_of}" if call.on_behalf_of else "")
    return printable(f"{call.tool_call_id}  {who}  {call.tool_name} {call.args_summary}")
