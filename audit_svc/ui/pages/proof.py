"""The proof of one row, as a file for whoever has the log's key."""

from onrecord.audit.v1 import audit_pb2, proof_pb2, questions_pb2
from starlette.responses import Response

from audit_svc.ui.asked import Asked, WrongAddress

KINDS = {
    "call": audit_pb2.ROW_KIND_TOOL_CALL,
    "request": audit_pb2.ROW_KIND_MODEL_REQUEST,
    "session": audit_pb2.ROW_KIND_SESSION,
    "control": audit_pb2.ROW_KIND_CONTROL,
}


async def proof(asked: Asked) -> Response:
    """The file, as https://c2sp.org/tlog-proof has it. Raises WrongAddress, NotAnswered."""
    kind = KINDS.get(asked.text("kind"))
    if kind is None:
        raise WrongAddress(f"kind is one of {', '.join(KINDS)}")
    row = questions_pb2.RowKey(id=asked.request.query_params.get("id", ""), recorded_by=asked.name_of_caller("by"))
    answer: proof_pb2.GetProofResponse = await asked.ledger.ask(
        "GetProof", proof_pb2.GetProofRequest(kind=kind, row=row)
    )
    headers = {"content-disposition": f'attachment; filename="{asked.text("kind")}.tlog-proof"'}
    return Response(answer.proof, media_type="text/plain; charset=utf-8", headers=headers)
