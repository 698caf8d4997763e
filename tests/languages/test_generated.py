"""Code for other languages is generated from the protos by the plugins that Debian and npm have, and compiles.

Not to be had there: a C# compiler with Google.Protobuf and the C# plugin of gRPC (its messages are generated, and not
compiled), and tonic for Rust (prost's messages are generated and compiled, services are not).
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.languages

HERE = Path(__file__).parent
PROTOS = HERE.parent.parent / "protos"
NAMES = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "onrecord").rglob("*.proto"))
STATUS = "google/rpc/status.proto"
"""Java, C++ and the like have it in a library; where it is not at hand it is generated too."""
JARS = ("protobuf", "grpc-api", "grpc-stub", "grpc-protobuf", "guava", "geronimo-annotation-1.3-spec")


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> None:
    """Runs a tool of a language. Skips where it is missing, but not in CI, where all that can be had is installed."""
    if shutil.which(command[0]) is None and not os.environ.get("CI"):
        pytest.skip(f"{command[0]} is not installed")
    ended = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def protoc(*options: str | Path, names: Sequence[str] = NAMES) -> None:
    run("protoc", "-I", PROTOS, *options, *names)


def plugin(language: str) -> str:
    """The option that names gRPC's plugin of a language."""
    return f"--plugin=protoc-gen-grpc=/usr/bin/grpc_{language}_plugin"


def test_java_compiles(tmp_path):
    """Each message has a file of its own: nothing nears Java's limits."""
    protoc(f"--java_out={tmp_path}", plugin("java"), f"--grpc_out={tmp_path}")
    protoc(f"--java_out={tmp_path}", names=[STATUS])
    sources = list(tmp_path.rglob("*.java"))
    classes = ":".join(f"/usr/share/java/{jar}.jar" for jar in JARS)
    run("javac", "-nowarn", "-d", tmp_path / "classes", "-cp", classes, *sources)
    assert (tmp_path / "classes/dev/onrecord/gateway/v1/GatewayServiceGrpc.class").exists()
    assert max(len(path.read_text().splitlines()) for path in sources) < 10_000


def test_cpp_compiles(tmp_path):
    protoc(f"--cpp_out={tmp_path}", plugin("cpp"), f"--grpc_out={tmp_path}")
    protoc(f"--cpp_out={tmp_path}", names=[STATUS])
    run("g++", "-std=c++17", "-fsyntax-only", "-I", tmp_path, *tmp_path.rglob("*.pb.cc"))


def test_go_compiles(tmp_path):
    """The import paths are those that go_package names."""
    source = tmp_path / "src"
    source.mkdir()
    protoc(f"--go_out={source}", f"--go-grpc_out={source}")
    packages = ["./" + str(path.relative_to(tmp_path)) for path in source.rglob("v1") if path.is_dir()]
    assert len(packages) == 3
    run("go", "vet", *packages, cwd=tmp_path, GO111MODULE="off", GOFLAGS="", GOPATH=f"{tmp_path}:/usr/share/gocode")


@pytest.fixture(scope="module")
def typescript(tmp_path_factory) -> Path:
    """A folder with the compiler and the plugins from npm."""
    folder: Path = tmp_path_factory.mktemp("typescript")
    shutil.copytree(HERE / "typescript", folder, dirs_exist_ok=True)
    run("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=folder)
    return folder


def test_connect_es_compiles(typescript):
    (typescript / "es").mkdir()
    es = typescript / "node_modules/.bin/protoc-gen-es"
    protoc(f"--plugin={es}", f"--es_out={typescript / 'es'}", "--es_opt=target=ts", names=[*NAMES, STATUS])
    run(typescript / "node_modules/.bin/tsc", "-p", "tsconfig.es.json", cwd=typescript)


def test_grpc_js_compiles(typescript):
    """With 64-bit integers as bigint: a number of JavaScript holds 53 bits."""
    out = typescript / "grpc-js"
    out.mkdir()
    options = "outputServices=grpc-js,esModuleInterop=true,forceLong=bigint"
    ts_proto = typescript / "node_modules/.bin/protoc-gen-ts_proto"
    protoc(f"--plugin={ts_proto}", f"--ts_proto_out={out}", f"--ts_proto_opt={options}")
    run(typescript / "node_modules/.bin/tsc", "-p", "tsconfig.grpc-js.json", cwd=typescript)


def test_rust_compiles(tmp_path):
    shutil.copytree(HERE / "rust", tmp_path, dirs_exist_ok=True)
    run("cargo", "check", "--quiet", "--offline", cwd=tmp_path, ONRECORD_PROTOS=str(PROTOS))


@pytest.mark.parametrize(
    ("language", "options", "expected"),
    [
        ("csharp", ["--csharp_out={}"], "namespace OnRecord.Gateway.V1 {"),
        ("php", ["--php_out={}", plugin("php"), "--grpc_out={}"], "namespace OnRecord\\Gateway\\V1;"),
        ("ruby", ["--ruby_out={}", plugin("ruby"), "--grpc_out={}"], "module OnRecord"),
    ],
)
def test_it_is_generated_in_its_namespace(tmp_path, language, options, expected):
    protoc(*(option.format(tmp_path) for option in options))
    assert any(expected.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
