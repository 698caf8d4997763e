"""Maintenance of a ledger through its service."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from onrecord.audit.v1 import administration_pb2, administration_pb2_grpc

from audit_svc.errors import AuditError, InvalidRequest
from audit_svc.ledger.progress import OnProgress
from audit_svc.sqlite.care.backup import new_file
from audit_svc.sqlite.open.files import sync
from recording.channel.options import CLIENT_OPTIONS
from recording.channel.watched import WrongFile
from service_kit.client import current_access
from service_kit.printable import printable
from service_kit.unanswered import LEDGER, told


class Refused(AuditError):
    """The service did not do it, or could not be reached; the message says why."""


class WrongRequest(Refused, InvalidRequest):
    """The service says that what was asked cannot be asked."""


class NotThere(Refused):
    """What the request names is not in the service's ledger."""


class TransferFailed(AuditError):
    """The copy that arrived is not the one that the service sent."""


@contextmanager
def service(
    target: str,
) -> Iterator[tuple["administration_pb2_grpc.AdministrationServiceStub", tuple[tuple[str, str], ...]]]:
    """A stub of the service at target, "host:port", and the metadata of each call.

    Raises:
        Refused: an RPC in the body failed, or a file of those options cannot be used.
    """
    try:
        credentials, metadata = current_access().credentials(), current_access().metadata()
    except WrongFile as error:
        raise Refused(str(error)) from None
    channel = (
        grpc.insecure_channel(target, options=CLIENT_OPTIONS)
        if credentials is None
        else grpc.secure_channel(target, credentials, options=CLIENT_OPTIONS)
    )
    with channel:
        try:
            yield administration_pb2_grpc.AdministrationServiceStub(channel), tuple(metadata)
        except grpc.RpcError as error:
            kinds = {grpc.StatusCode.NOT_FOUND: NotThere, grpc.StatusCode.INVALID_ARGUMENT: WrongRequest}
            kind = kinds.get(error.code(), Refused)
            raise kind(printable(told(target, LEDGER, error))) from None


def prune(target: str, request: administration_pb2.PruneRequest) -> Iterator[administration_pb2.PruneResponse]:
    """Prunes, or counts, and tells how far it is. Raises Refused."""
    with service(target) as (stub, metadata):
        yield from stub.Prune(request, metadata=metadata)


def erase(target: str, request: administration_pb2.EraseRequest) -> Iterator[administration_pb2.EraseResponse]:
    """Erases, or counts, and tells how far it is. Raises Refused."""
    with service(target) as (stub, metadata):
        yield from stub.Erase(request, metadata=metadata)


def back_up(target: str, path: Path, on_progress: OnProgress) -> tuple[int, str]:
    """Fetches a checked copy into path, which must not be there. Returns its size in bytes and its SHA-256.

    Raises:
        Refused: the service did not send one.
        TransferFailed: size or SHA-256 are not those that the service named.
        StoreRefused, DiskFull: path cannot be written.
    """
    with new_file(path) as partial, service(target) as (stub, metadata):
        digest = hashlib.sha256()
        total = received = 0
        named = ""
        with partial.open("wb") as file:
            for part in stub.Backup(administration_pb2.BackupRequest(), metadata=metadata):
                total = total or part.total_bytes
                file.write(part.data)
                digest.update(part.data)
                received += len(part.data)
                named = part.sha256
                on_progress(received, total)
        if (received, digest.hexdigest()) != (total, named):
            raise TransferFailed(f"what came from {target} is not what it sent: try again")
        sync(partial)
    return received, named
