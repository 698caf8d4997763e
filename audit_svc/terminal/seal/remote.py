"""verify and proof, of a running service: over RPC, with a key from elsewhere."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2, proof_pb2, questions_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.tables import TOOL_CALL_COLUMNS
from audit_svc.seal.errors import BadLog, SealError
from audit_svc.seal.folder import read_checkpoint
from audit_svc.seal.leaf import BY_NAME
from audit_svc.seal.outside.quorum import look, roots_of
from audit_svc.seal.proving import KINDS_WITH_ID, not_there
from audit_svc.seal.remote import Call, RemoteTiles, follow
from audit_svc.seal.tiles import Tiles
from audit_svc.seal.verify import Report, check_tiles
from audit_svc.terminal.client import PAGE_SECONDS, ROWS, SESSIONS, newest_ids
from audit_svc.terminal.running import EXIT_FAILED
from audit_svc.terminal.service import answers_are_exit_code_1, open_service
from recording.row_version import ROW_VERSION
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Witness
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier
from recording.transparency.proof import Proof
from service_kit.terminal.failures import Failed
from service_kit.terminal.ids import LAST, is_whole, too_short, whole_id

NEWEST = 20
"""Of so many tool calls it is looked whether what is answered is what was sealed."""
_WITH_ID = (
    audit_pb2.ROW_KIND_TOOL_CALL,
    audit_pb2.ROW_KIND_MODEL_REQUEST,
    audit_pb2.ROW_KIND_SESSION,
    audit_pb2.ROW_KIND_CONTROL,
)


class _NotThere(Failed):
    """No row has the id."""


def verify(
    target: str,
    log: Verifier,
    old_checkpoints: list[Path],
    witnesses: list[Witness],
    quorum: int,
    on_progress: Callable[[int, int], None],
) -> Report:
    """Verifies what a service serves of its log: its checkpoint, that it begins with old ones, all tiles, witnesses.

    Raises:
        Exit: the service cannot be asked.
        SealError: an old checkpoint is not there.
    """
    report = Report()
    with _asking(target) as call:
        answer = call("GetCheckpoint", proof_pb2.GetCheckpointRequest())
        try:
            report.checkpoint = checkpoint = Checkpoint.open(answer.note, log)
            for path in old_checkpoints:
                report.problems += _check_old(call, path, log)
            tiles = RemoteTiles(call, checkpoint.size)
            check_tiles(tiles, checkpoint, on_progress)
            seen = look([answer.note, *answer.cosigned_notes], log, witnesses, quorum, roots_of(tiles))
            _check_rows(call, log, tiles, report)
        except (BadNote, BadLog) as error:
            report.problems.append(str(error))
            return report
    report.witnesses = seen.by
    report.problems += seen.problems
    return report


def _check_rows(call: Call, log: Verifier, tiles: Tiles, report: Report) -> None:
    """What the service answers of its newest tool calls is what it has sealed of them. Raises BadLog."""
    listed = call("ListToolCalls", questions_pb2.ListToolCallsRequest(page_size=NEWEST))
    for record in listed.tool_calls:
        id_, by = record.tool_call.id, record.receipt.recorded_by
        row = questions_pb2.RowKey(id=id_, recorded_by=by)
        try:
            answer = call("GetProof", proof_pb2.GetProofRequest(kind=audit_pb2.ROW_KIND_TOOL_CALL, row=row))
            made = Proof.parse(answer.proof)
            made.check(log)
        except BadNote as error:
            report.problems.append(f"tool_call {id_}: {error}")
            continue
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                report.unsealed["tool_call"] = report.unsealed.get("tool_call", 0) + 1
            elif error.code() in {grpc.StatusCode.DATA_LOSS, grpc.StatusCode.NOT_FOUND}:
                report.problems.append(f"tool_call {id_}: {error.details()}")
            else:
                raise
            continue
        if made.index < tiles.size and tiles.leaf(made.index) != tree.leaf_hash(made.leaf):
            report.problems.append(f"tool_call {id_} has a proof of another log than the one that is served")
        elif wrong := _differing(record, made.leaf):
            report.problems.append(f"tool_call {id_} is answered otherwise than it was sealed: {', '.join(wrong)}")
        else:
            report.rows += 1


def _differing(record: questions_pb2.ToolCallRecord, leaf: bytes) -> list[str]:
    """The names of what the service answers of a row, and its leaf says otherwise."""
    sealed: dict[str, str | None] = json.loads(leaf)
    request = audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=[record.tool_call])
    rows = read_batch(request, record.receipt.recorded_at_ms).tool_calls
    said: dict[str, Any] = {column.name: None for column in TOOL_CALL_COLUMNS}
    said |= dict(zip((column.name for column in rows.columns), next(rows.rows()), strict=False))
    said |= {"recorded_by": record.receipt.recorded_by, "position": record.receipt.position, "kind": "tool_call"}
    return [
        name
        for name, value in said.items()
        if name in sealed
        and name not in {*BY_NAME["tool_call"].hashed, "clock_suspect"}
        and sealed[name] != (value if value is None or isinstance(value, str) else str(int(value)))
    ]


def _check_old(call: Call, path: Path, log: Verifier) -> Iterator[str]:
    try:
        old, _ = read_checkpoint(path, log)
    except FileNotFoundError:
        raise SealError(f"{path} is not there") from None
    except (BadLog, BadNote) as error:
        yield f"an old checkpoint cannot be used: {error}"
        return
    if wrong := follow(call, old, log):
        yield f"{path}: {wrong}"


def prove(
    target: str, text: str, recorded_by: str | None, *, with_texts: bool
) -> tuple[str, proof_pb2.GetProofResponse]:
    """The id that text stands for, see whole_id(), and the proof of its row, of whatever kind.

    Raises:
        Exit, BadParameter.
    """
    id_ = _named(target, text) if text == LAST else text
    try:
        return id_, _prove(target, id_, recorded_by, with_texts=with_texts)
    except _NotThere:
        if is_whole(id_) or (id_ := _named(target, text)) == text:
            raise
    return id_, _prove(target, id_, recorded_by, with_texts=with_texts)


def _prove(target: str, id_: str, recorded_by: str | None, *, with_texts: bool) -> proof_pb2.GetProofResponse:
    missing: grpc.RpcError | None = None
    row = questions_pb2.RowKey(id=id_, recorded_by=recorded_by)
    with _asking(target) as call:
        for kind in _WITH_ID:
            try:
                request = proof_pb2.GetProofRequest(kind=kind, row=row, with_texts=with_texts)
                answer: proof_pb2.GetProofResponse = call("GetProof", request)
                return answer
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                missing = error
    raise _NotThere(not_there(KINDS_WITH_ID) + too_short(id_), EXIT_FAILED, missing)


def _named(target: str, text: str) -> str:
    with answers_are_exit_code_1(target), open_service(target) as service:
        found = newest_ids(service, [SESSIONS] if text == LAST else [SESSIONS, *ROWS])
    return whole_id(text, found, "ID")


@contextmanager
def _asking(target: str) -> Iterator[Callable[[str, Message], Any]]:
    with answers_are_exit_code_1(target), open_service(target) as service:
        yield lambda rpc, request: service.call(rpc, request, PAGE_SECONDS)
