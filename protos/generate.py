"""Generates the Python code that lies beside each proto. With --check it only fails when a file is stale."""

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(target: Path) -> None:
    """Writes the generated code of every proto below ROOT into target."""
    # where protoc-gen-mypy lies
    os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", "")
    well_known = str(Path(protoc.__file__).parent / "_proto")
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "onrecord").rglob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}", *outputs, *sources]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")


def read_tree(folder: Path) -> dict[str, bytes]:
    """The generated files below folder, by their path relative to it."""
    return {str(path.relative_to(folder)): path.read_bytes() for glob in GENERATED for path in folder.rglob(glob)}


def main() -> None:
    if sys.argv[1:] != ["--check"]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, committed = read_tree(Path(scratch)), read_tree(ROOT)
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    if stale:
        sys.exit("generated code is stale, run `make protos`:\n  " + "\n  ".join(stale))


if __name__ == "__main__":
    main()
