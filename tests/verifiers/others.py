"""What is asked of libraries of others about a log; runs in the verifiers' own environment.

tiles KEY FOLDER              aics-tlog proves every tile by the checkpoint
submit URL KEY NOTE FOLDER    asks an aics-witness, whose key that is, to cosign a checkpoint of the log
roots CHECKPOINT… < leaves    pymerkle computes the roots of the leaves; a line is an index, a space, and the leaf

What does not fit is said on stderr, with exit code 1.
"""

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymerkle
from aics_tlog import (
    FileSystemTileReader,
    audit_tiles,
    consistency_proof_from_tiles,
    parse_note,
    parse_vkey,
    verify_checkpoint,
)
from aics_witness import submit_checkpoint


def tiles(key: str, folder: str) -> str:
    note = parse_note((Path(folder) / "checkpoint").read_bytes())
    signed = verify_checkpoint(note, parse_vkey(key))
    if not signed.ok:
        raise ValueError(f"the checkpoint: {signed.error}")
    report = audit_tiles(FileSystemTileReader(folder), signed.size, signed.root, entries=False)
    return f"{report.tiles} tiles of {report.size} leaves"


def submit(url: str, key: str, note: str, folder: str) -> str:
    reader = FileSystemTileReader(folder)

    def proof(old: int, new: int) -> Any:
        return consistency_proof_from_tiles(reader, old, new)

    return str(submit_checkpoint(url, Path(note).read_bytes(), proof, witness_vkey=key, max_attempts=1))


def roots(*checkpoints: str) -> str:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for line in sys.stdin.buffer.read().splitlines():
        tree.append_entry(line.partition(b" ")[2])
    for path in checkpoints:
        _, size, root, *_ = Path(path).read_text(encoding="utf-8").splitlines()
        if tree.get_size() < int(size) or tree.get_root(int(size)) != base64.b64decode(root):
            raise ValueError(f"the first {size} leaves have another root than {path} says")
    return f"{tree.get_size()} leaves"


ASKED: dict[str, Callable[..., str]] = {"tiles": tiles, "submit": submit, "roots": roots}

if __name__ == "__main__":
    try:
        print(ASKED[sys.argv[1]](*sys.argv[2:]))
    except Exception as error:  # noqa: BLE001 - each library has its own
        sys.exit(f"{type(error).__name__}: {error}")
