"""Every RPC of both services under every kind of credential, both services with certificates: who is let in is who the
table in docs/security.md says. The RPCs come from the protos' descriptors, so a new one is in it by itself."""

import asyncio
import importlib
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from demo.processes import REPOSITORY, Service, start_service
from service_kit.access.roles import Role, make_token
from tests.e2e.test_logs import lines_of
from tests.e2e.test_roles import ANSWER_SECONDS, REFUSALS, bearer, outcome, table
from tests.support.certificates import Authority, Pair

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

PROTOS = REPOSITORY / "protos"
UNAUTHENTICATED, DENIED, UNREACHED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAVAILABLE,
)
EVERY_ROLE = frozenset(Role)


def methods() -> dict[str, MethodDescriptor]:
    """Every RPC of every proto, by the name that it has in the table."""
    found: dict[str, MethodDescriptor] = {}
    for path in sorted((PROTOS / "onrecord").rglob("*_pb2.py")):
        module = importlib.import_module(".".join(path.relative_to(PROTOS).with_suffix("").parts))
        for service in module.DESCRIPTOR.services_by_name.values():
            found |= {f"{service.name}/{method.name}": method for method in service.methods}
    return found


@dataclass(frozen=True)
class Credential:
    """What a client shows, and what becomes of it: the roles that it has, or how it is refused."""

    certificate: Pair | None
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    roles: frozenset[Role] = frozenset()
    refused_by: frozenset[grpc.StatusCode] = field(default=frozenset({UNAUTHENTICATED}))
    """The status of all RPCs, where there are no roles."""

    def expects(self, allowed: set[str]) -> frozenset[grpc.StatusCode] | None:
        """The statuses by which an RPC refuses it; None: it lets it in."""
        if not self.roles:
            return self.refused_by
        return None if self.roles & {Role(role) for role in allowed} else frozenset({DENIED})


class Guarded:
    """Both services under mTLS with one list of callers, and the credentials."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.ca, self.other = Authority(folder), Authority(folder, "another-ca")
        self.entries: list[str] = []
        self.credentials = self._make_credentials()
        server = self.ca.server()
        callers = folder / "callers.toml"
        callers.write_text("\n".join(self.entries))
        tls = {
            "TLS_CERT": str(server.certificate),
            "TLS_KEY": str(server.key),
            "TLS_CLIENT_CA": str(self.ca.path),
            "TOKENS_FILE": str(callers),
            "LISTEN": "127.0.0.1:0",
        }
        audit = {f"AUDIT_{name}": value for name, value in tls.items()}
        gateway = {f"GATEWAY_{name}": value for name, value in tls.items()}
        model = {"GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m"}
        gateway |= {"GATEWAY_STATE_DIR": str(folder / "state"), "GATEWAY_AUDIT_TARGET": "127.0.0.1:1", **model}
        audit |= {"AUDIT_DB": str(folder / "audit.db")}
        self.services: dict[str, Service] = {
            "onrecord.audit.v1": stack.enter_context(start_service("audit_svc", audit, "serve")),
            "onrecord.gateway.v1": stack.enter_context(start_service("gateway_svc", gateway, "serve")),
        }

    def _token(self, name: str, roles: frozenset[Role], expires: datetime | None = None) -> str:
        token, entry = make_token(name, sorted(roles), expires)
        self.entries.append(entry)
        return token

    def _listed(self, name: str, roles: frozenset[Role], certificate: str, expires: str = "") -> None:
        shown = ", ".join(f'"{role}"' for role in sorted(roles))
        self.entries.append(
            f'[[callers]]\nname = "{name}"\nroles = [{shown}]\n{expires}certificate = "{certificate}"\n'
        )

    def _make_credentials(self) -> dict[str, Credential]:
        nobody = self.ca.issue("nobody")
        tokens = {role: self._token(f"{role}-by-token", frozenset({role})) for role in Role}
        admin = tokens[Role.ADMIN]
        some, every = frozenset({Role.PRODUCER, Role.READER}), self._token("every", EVERY_ROLE)
        expired = self._token("expired", EVERY_ROLE, datetime.now(UTC) - timedelta(seconds=1))
        made = {
            "nothing": Credential(nobody),
            "an empty header": Credential(nobody, (("authorization", ""),)),
            "a scheme without a token": Credential(nobody, (("authorization", "Bearer"),)),
            "an empty token": Credential(nobody, bearer("")),
            "what is no token": Credential(nobody, bearer("{not: [a, token}")),
            "an unknown token": Credential(nobody, bearer("guessed")),
            "a part of a token": Credential(nobody, bearer(admin[:-1])),
            "an expired token": Credential(nobody, bearer(expired)),
            "another scheme": Credential(nobody, (("authorization", f"Basic {admin}"),)),
            "a token without a scheme": Credential(nobody, (("authorization", admin),)),
            "two headers, the first unknown": Credential(nobody, (*bearer("guessed"), *bearer(admin))),
            "two headers, the last unknown": Credential(nobody, (*bearer(admin), *bearer("guessed"))),
            "two tokens in one header": Credential(nobody, bearer(f"{admin}, Bearer {every}")),
            "a binary header with control characters": Credential(
                nobody, (("authorization-bin", f"Bearer {admin}\0\r\n".encode()),)
            ),
            "a huge token": Credential(nobody, bearer(admin * 150)),
            "a token beyond what gRPC takes": Credential(
                nobody,
                bearer("x" * 200_000),
                refused_by=frozenset({UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}),
            ),
            **{f"a token of a {role}": Credential(nobody, bearer(tokens[role]), frozenset({role})) for role in Role},
            "a token with two roles": Credential(nobody, bearer(self._token("two-roles", some)), some),
            "a token with every role": Credential(nobody, bearer(every), EVERY_ROLE),
            "a token, and no certificate": Credential(None, bearer(every), refused_by=frozenset({UNREACHED})),
        }
        for role in Role:
            uri = f"spiffe://example.org/{role}"
            self._listed(f"{role}-by-uri", frozenset({role}), uri)
            by_uri = self.ca.issue(f"uri-{role}", x509.UniformResourceIdentifier(uri))
            made[f"a certificate of a {role}, by URI"] = Credential(by_uri, roles=frozenset({role}))
        self._listed("chief", EVERY_ROLE, "chief")
        self._listed("former", EVERY_ROLE, "former", "expires = 2020-01-01T00:00:00Z\n")
        chief = self.ca.issue("chief")
        refused = frozenset({UNREACHED})
        made |= {
            "a certificate by its common name": Credential(chief, roles=EVERY_ROLE),
            "a certificate of a former caller": Credential(self.ca.issue("former")),
            "a certificate whose DNS name is a caller's": Credential(
                self.ca.issue("dns", x509.DNSName("chief"), x509.RFC822Name("chief"))
            ),
            "a certificate whose name goes on behind a NUL": Credential(
                self.ca.issue("chief\0.evil.example", file="nul")
            ),
            "a certificate whose name begins like a caller's": Credential(self.ca.issue("chief.evil.example")),
            "a certificate whose URI begins like a caller's": Credential(
                self.ca.issue("u", x509.UniformResourceIdentifier("spiffe://example.org/admin/evil"))
            ),
            "a caller's certificate, and another's token": Credential(
                chief, bearer(tokens[Role.READER]), frozenset({Role.READER})
            ),
            "a caller's certificate, and an unknown token": Credential(chief, bearer("guessed")),
            "a certificate of another CA": Credential(self.other.issue("chief", file="forged"), refused_by=refused),
            "an expired certificate": Credential(self.ca.issue("chief", days=0, file="old"), refused_by=refused),
            "a certificate that signed itself": Credential(
                Authority(self.ca.path.parent, "self-signed").issue("chief", file="self"), refused_by=refused
            ),
        }
        return made

    def channel(self, package: str, pair: Pair | None) -> grpc.aio.Channel:
        key, chain = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca.path.read_bytes(), key, chain)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
        return grpc.aio.secure_channel(self.services[package].address, credentials, options)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with ExitStack() as stack:
        yield Guarded(tmp_path_factory.mktemp("guarded"), stack)


async def test_every_rpc_lets_in_who_the_table_names_under_every_credential(guarded: Guarded):
    allowed, rpcs = table(), methods()
    assert allowed.keys() == rpcs.keys(), "each RPC has its line in the table, and no other has one"
    assert {method.containing_service.file.package for method in rpcs.values()} == guarded.services.keys()
    assert len(guarded.credentials) >= 26
    cells = [(name, who) for name in rpcs for who in guarded.credentials]
    places = asyncio.Semaphore(100)

    async def ask(channels: dict[tuple[str, str], grpc.aio.Channel], name: str, who: str) -> str:
        shown = guarded.credentials[who]
        expected = shown.expects(allowed[name])
        async with places:
            channel = channels[rpcs[name].containing_service.file.package, who]
            seconds = ANSWER_SECONDS if expected is None else 60
            code = await outcome(channel, rpcs[name], shown.metadata, seconds)
        if expected is None:
            return f"is refused by {code.name}" if code in (*REFUSALS, UNREACHED) else ""
        return "" if code in expected else f"is answered {code.name}"

    async with AsyncExitStack() as stack:
        channels = {
            (package, who): await stack.enter_async_context(guarded.channel(package, shown.certificate))
            for package in guarded.services
            for who, shown in guarded.credentials.items()
        }
        told = await asyncio.gather(*(ask(channels, name, who) for name, who in cells))
    assert [(*cell, wrong) for cell, wrong in zip(cells, told, strict=True) if wrong] == []


async def test_health_answers_whoever_has_a_certificate_of_the_ca(guarded: Guarded):
    """Each of its RPCs, also those that are younger than this service."""
    for package in guarded.services:
        async with guarded.channel(package, guarded.credentials["nothing"].certificate) as channel:
            for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods:
                assert await outcome(channel, method, (), 60) is grpc.StatusCode.OK


async def test_the_log_names_who_is_refused(guarded: Guarded):
    """A known caller by its name, also where it has not the role; whom nobody knows as anonymous."""
    method, service = methods()["AuditService/RecordBatch"], guarded.services["onrecord.audit.v1"]
    names = {DENIED: f"{Role.READER}-by-token", UNAUTHENTICATED: "anonymous"}
    async with guarded.channel("onrecord.audit.v1", guarded.credentials["nothing"].certificate) as channel:
        for who, code in (("a token of a reader", DENIED), ("an unknown token", UNAUTHENTICATED)):
            told: set[str] = set()
            while names[code] not in told:  # a thread writes the log, and so many lines a second at most
                assert await outcome(channel, method, guarded.credentials[who].metadata, 30) is code
                await asyncio.sleep(0.1)
                whole = service.stderr_text().rpartition("\n")[0].splitlines()
                lines = [line for line in map(json.loads, whole) if line["event"] == "rpc.refused"]
                told = {line["caller"] for line in lines if line["code"] == code.name}
            assert ("anonymous" in told) is (code is UNAUTHENTICATED)
    assert "anonymous" not in {line["caller"] for line in lines_of(service, "rpc.denied")}


LONG = "x" * 2_000_000
LONG_AT_ONCE = 8
"""How many of such are asked at once: some answers are streams without end, and are left when a time is over."""


def with_long_texts(message: Message, depth: int = 0) -> Iterator[str]:
    """Sets each text of a message, one after the other, to LONG; yields its path while it is set."""
    for text in message.DESCRIPTOR.fields:
        name = text.name
        if text.message_type and text.message_type.GetOptions().map_entry:
            if text.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
                getattr(message, name)["a"] = LONG
                yield name
                message.ClearField(name)
                getattr(message, name)[LONG] = "a"
                yield f"{name}'s key"
        elif text.message_type and depth < 4:
            inner = getattr(message, name)
            inner = inner.add() if text.is_repeated else inner
            for path in with_long_texts(inner, depth + 1):
                yield f"{name}.{path}"
        elif text.type == FieldDescriptor.TYPE_STRING:
            getattr(message, name).append(LONG) if text.is_repeated else setattr(message, name, LONG)
            yield name
        message.ClearField(name)


async def test_no_text_of_two_megabytes_is_quoted_back(guarded: Guarded):
    """Whatever an id, a name or a label is, the answer is about it, and fits what gRPC's clients take."""
    shown = guarded.credentials["a token with every role"]
    fine = {
        "OK",
        "PERMISSION_DENIED",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "CANCELLED",
    }
    wrong, few = [], asyncio.Semaphore(LONG_AT_ONCE)

    async def ask(channel: grpc.aio.Channel, name: str, path: str, asked: bytes) -> None:
        try:
            code, quoted = await answer(channel, methods()[name], asked, shown.metadata)
        finally:
            few.release()
        is_unsealed = name.startswith("ProofService/") and code is grpc.StatusCode.UNIMPLEMENTED
        if not (code.name in fine or is_unsealed) or quoted > 8_000:
            wrong.append((name, path, code.name, quoted))

    for name, method in methods().items():
        package = method.containing_service.file.package
        async with guarded.channel(package, shown.certificate) as channel, asyncio.TaskGroup() as asking:
            request = GetMessageClass(method.input_type)()
            for path in with_long_texts(request):
                await few.acquire()
                asking.create_task(ask(channel, name, path, request.SerializeToString()))
    assert wrong == []


async def answer(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: bytes, metadata: Any
) -> tuple[grpc.StatusCode, int]:
    """How an RPC ends, or that it does not, and how much the end says."""
    kind = "_".join("stream" if side else "unary" for side in (method.client_streaming, method.server_streaming))
    make = getattr(channel, kind)(f"/{method.containing_service.full_name}/{method.name}")

    async def one() -> Any:
        yield request

    call = make(one() if method.client_streaming else request, metadata=metadata, timeout=ANSWER_SECONDS)
    said = 0
    try:
        if method.server_streaming:
            async for part in call:
                said = max(said, len(part) if method.name != "Backup" else 0)
        else:
            said = len(await call)
    except grpc.aio.AioRpcError as error:
        trailers = sum(len(key) + len(value) for key, value in error.trailing_metadata() or ())
        return error.code(), len((error.details() or "").encode()) + trailers
    return grpc.StatusCode.OK, said
