"""Generates the Python code that lies beside each proto. With --check it only fails when a file is stale."""

import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")

CHECKS = (
    re.compile(r"^from google\.protobuf import runtime_version as _runtime_version\n", re.MULTILINE),
    re.compile(r"^_runtime_version\.ValidateProtobufRuntimeVersion\(\n.*?^\)\n", re.MULTILINE | re.DOTALL),
    re.compile(r"^import warnings\n", re.MULTILINE),
    re.compile(r"^GRPC_GENERATED_VERSION = .*?^    \)\n", re.MULTILINE | re.DOTALL),
)
"""What refuses every runtime that is older than the generator. An application has the protobuf and the grpcio that it
has: the rest puts a descriptor into the runtime's pool, which protobuf 5, 6 and 7 all take."""


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
    for path in (target / "onrecord").rglob("*_pb2*.py"):
        code = path.read_text()
        for check in CHECKS:
            code = check.sub("", code)
        path.write_text(code)


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
