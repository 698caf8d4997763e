"""A log that a running service serves: each tile is asked for once, and nothing is believed before it is checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from onrecord.audit.v1 import proof_pb2

from audit_svc.seal.errors import BadLog
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.tiles import Tiles, tile_path
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier
from recording.transparency.tree import HASH_BYTES

Call = Callable[[str, Any], Any]
"""The name of an RPC of ProofService and its request to its response. Raises grpc.RpcError."""

_OF_THE_LOG = (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.NOT_FOUND)


class RemoteTiles(Tiles):
    """The hashes of the log's first size leaves, by RPC."""

    def __init__(self, call: Call, size: int) -> None:
        super().__init__(FolderFiles(Path()), size)
        self._call = call

    def _read(self, level: int, n: int, width: int) -> bytes:
        path = tile_path(level, n, width)
        try:
            data: bytes = self._call("GetTile", proof_pb2.GetTileRequest(path=path)).data
        except grpc.RpcError as error:
            if error.code() in _OF_THE_LOG:
                raise BadLog(f"{path} is not served: {error.details()}") from None
            raise
        if len(data) != width * HASH_BYTES:
            raise BadLog(f"{path} has {len(data)} bytes, and not {width * HASH_BYTES}")
        return data


def follow(call: Call, old: Checkpoint, log: Verifier) -> str:
    """Why the log that is served does not begin with an old checkpoint; empty where it does."""
    answer = call("GetCheckpoint", proof_pb2.GetCheckpointRequest(old_size=old.size))
    try:
        new = Checkpoint.open(answer.note, log)
    except BadNote as error:
        return str(error)
    if new.size < old.size:
        return f"{old.size} leaves were signed, and the log has {new.size}: it was rolled back"
    if not tree.is_consistent(old.root, old.size, new.root, new.size, answer.consistency_hashes):
        return f"the log does not begin with the {old.size} leaves that were signed: it was written anew"
    return ""
