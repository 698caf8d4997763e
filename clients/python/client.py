"""A client of both services that needs only grpcio; ../README.md says what it does and which variables it reads."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.rpc import error_details_pb2, status_pb2
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc, questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2, approvals_pb2_grpc, gateway_pb2, gateway_pb2_grpc

TIMEOUT_SECONDS = 60
ROW_VERSION = 1
"""The version of the rows that this program was written for; protos/README.md lists them."""


PROTOS = Path(__file__).parents[2] / "protos"


def connect(address: str) -> grpc.Channel:
    """A channel that tries again what may be; with TLS if a CA is given, else in plain text."""
    options = [("grpc.service_config", (PROTOS / "onrecord/service_config.json").read_text(encoding="utf-8"))]
    if ca := os.environ.get("ONRECORD_CA"):
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca).read_bytes()), options)
    return grpc.insecure_channel(address, options)


def token(variable: str) -> tuple[tuple[str, str], ...]:
    """The metadata that authenticates each call."""
    path = os.environ.get(variable)
    return (("authorization", f"Bearer {Path(path).read_text(encoding='utf-8').strip()}"),) if path else ()


def events_of(
    gateway: gateway_pb2_grpc.GatewayServiceStub, request: gateway_pb2.RunTurnRequest
) -> Iterator[gateway_pb2.TurnEvent]:
    """A turn's events. After the first tool call it leaves the stream, as if it broke, and goes on with AttachTurn."""
    metadata = token("ONRECORD_GATEWAY_TOKEN")
    stream = gateway.RunTurn(request, timeout=TIMEOUT_SECONDS, metadata=metadata)
    attach = gateway_pb2.AttachTurnRequest()
    for event in stream:
        attach.turn_id = attach.turn_id or event.turn_accepted.turn_id
        attach.after_sequence = event.sequence or attach.after_sequence  # a heartbeat has none
        yield event
        if event.HasField("tool_call_finished"):
            break
    stream.cancel()
    yield from gateway.AttachTurn(attach, timeout=TIMEOUT_SECONDS, metadata=metadata)


def approve(channel: grpc.Channel, call: gateway_pb2.ToolCallStarted) -> None:
    """Lets a call run that waits for an answer. The digest goes back, so that what was approved is what runs."""
    answer = approvals_pb2.AnswerToolCallRequest(
        tool_call_id=call.tool_call_id, verdict=common_pb2.VERDICT_ALLOWED, args_digest=call.args_digest
    )
    approvals = approvals_pb2_grpc.ApprovalServiceStub(channel)
    approvals.AnswerToolCall(answer, timeout=TIMEOUT_SECONDS, metadata=token("ONRECORD_GATEWAY_TOKEN"))
    print(f"approved {call.tool_name}")


def run_turn(channel: grpc.Channel) -> str:
    """Prints a turn as it runs, and approves what waits for an answer; returns its session."""
    gateway = gateway_pb2_grpc.GatewayServiceStub(channel)
    settings = gateway_pb2.SessionSettings(labels={"user": "python", "approvals": "asked"})
    request = gateway_pb2.RunTurnRequest(
        request_id=str(uuid.uuid4()), input="What is in this folder?", new_session=settings, keep_on_disconnect=True
    )
    session_id = ""
    for event in events_of(gateway, request):
        match event.WhichOneof("event"):
            case "turn_accepted":
                session_id = event.turn_accepted.session_id
            case "turn_started":
                print(f"turn started on {event.turn_started.engine}")
            case "text_delta":
                print(event.text_delta.text, end="", flush=True)
            case "tool_call_started" if event.tool_call_started.HasField("pending"):
                approve(channel, event.tool_call_started)
            case "tool_call_finished":
                call = event.tool_call_finished
                print(f"tool call {call.tool_name}: {common_pb2.Outcome.Name(call.outcome)}")
            case "turn_finished":
                print(f"\nturn finished: {gateway_pb2.StopReason.Name(event.turn_finished.stop_reason)}")
                if event.turn_finished.HasField("error"):
                    raise SystemExit(f"turn failed: {event.turn_finished.error.message}")
    return session_id


def row(session_id: str, tool_name: str) -> audit_pb2.AuditRow:
    """A tool call of our own. The sender redacts the arguments; the ledger stores them as they are."""
    return audit_pb2.AuditRow(
        id=str(uuid.uuid4()),
        session_id=session_id,
        engine="python-client",
        tool_name=tool_name,
        args_summary="step=1",
        duration_ms=12,
        created_at_ms=time.time_ns() // 1_000_000,
        outcome=common_pb2.OUTCOME_SUCCEEDED,
    )


def record(audit: audit_pb2_grpc.AuditServiceStub, session_id: str) -> None:
    """Sends two batches, and the first one again. A batch is safe once its response has arrived."""
    producer = os.environ["ONRECORD_PRODUCER"]
    batches = [
        audit_pb2.RecordRequest(
            range=audit_pb2.SequenceRange(producer_id=producer, first=number, last=number),
            row_version=ROW_VERSION,
            tool_calls=[row(session_id, "measure"), row(session_id, "report")],
        )
        for number in (1, 2)
    ]

    def requests() -> Iterator[audit_pb2.RecordRequest]:
        yield from [*batches, batches[0]]

    metadata = token("ONRECORD_AUDIT_TOKEN")
    for response in audit.Record(requests(), timeout=TIMEOUT_SECONDS, metadata=metadata):
        print(f"batch {response.range.last}: {response.stored} stored, {response.duplicates} there already")
        for rejection in response.rejections:
            raise SystemExit(f"rejected for good: {rejection.message}")


def query(questions: questions_pb2_grpc.QuestionServiceStub, session_id: str) -> None:
    """Lists the session's tool calls page by page, what each tool used, and the model requests that failed."""
    metadata = token("ONRECORD_AUDIT_TOKEN")
    session = questions_pb2.ToolCallFilter(session_id=session_id)
    request = questions_pb2.ListToolCallsRequest(filter=session, page_size=2)
    listed, callers = 0, set()
    while True:
        page = questions.ListToolCalls(request, timeout=TIMEOUT_SECONDS, metadata=metadata)
        listed += len(page.tool_calls)
        callers |= {record.receipt.recorded_by for record in page.tool_calls}
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    print(f"ledger: {listed} calls")
    for caller in sorted(callers):  # sums are of what one caller recorded: two may use one id for a session
        of_caller = questions_pb2.ToolCallFilter(session_id=session_id, recorded_by=caller)
        usage = questions.SummarizeUsage(
            questions_pb2.SummarizeUsageRequest(filter=of_caller, group_by=["tool"]),
            timeout=TIMEOUT_SECONDS,
            metadata=metadata,
        )
        for group in usage.groups:
            name = group.values[0] or "the model"
            print(f"{caller} used: {name}: {group.tool_calls} calls, {group.usage.input_tokens} tokens read")
    failures = questions_pb2.ModelRequestFilter(session_id=session_id, has_error=True)
    failed = questions.ListModelRequests(
        questions_pb2.ListModelRequestsRequest(filter=failures), timeout=TIMEOUT_SECONDS, metadata=metadata
    )
    print(f"model requests that failed: {len(failed.model_requests)}")


def reason_of(refusal: grpc.Call) -> common_pb2.ErrorReason.ValueType:
    """The ErrorReason of a refused call; unspecified where this program does not know it: then the status code says."""
    packed = [value for key, value in refusal.trailing_metadata() or () if key == "grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(packed[0]).details if packed else ():
        if detail.Unpack(info) and info.domain == "onrecord.dev":
            known = dict(common_pb2.ErrorReason.items())
            return known.get(f"ERROR_REASON_{info.reason}", common_pb2.ERROR_REASON_UNSPECIFIED)
    return common_pb2.ERROR_REASON_UNSPECIFIED


def be_refused(questions: questions_pb2_grpc.QuestionServiceStub) -> None:
    """Asks for what is not there, and tells why it is refused by the reason of the error: its message is for people."""
    request = questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id=str(uuid.uuid4())))
    try:
        questions.GetSessionRecord(request, timeout=TIMEOUT_SECONDS, metadata=token("ONRECORD_AUDIT_TOKEN"))
    except grpc.RpcError as refusal:
        if not isinstance(refusal, grpc.Call) or reason_of(refusal) != common_pb2.ERROR_REASON_NOT_FOUND:
            raise
        print(f"refused as it should be: {common_pb2.ErrorReason.Name(reason_of(refusal))}")
    else:
        raise SystemExit("a session that nobody recorded was found")


def main() -> None:
    """Runs a turn, records, queries, is refused."""
    with connect(os.environ["ONRECORD_GATEWAY"]) as channel:
        session_id = run_turn(channel)
    with connect(os.environ["ONRECORD_AUDIT"]) as channel:
        record(audit_pb2_grpc.AuditServiceStub(channel), session_id)
        questions = questions_pb2_grpc.QuestionServiceStub(channel)
        query(questions, session_id)
        be_refused(questions)


if __name__ == "__main__":
    main()
