"""Every role calls every RPC of both services, and may what the table in docs/security.md says, and nothing else."""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2
from onrecord.audit.v1 import administration_pb2, audit_pb2, proof_pb2, questions_pb2
from onrecord.gateway.v1 import approvals_pb2, control_pb2, gateway_pb2

from demo.script import Script
from service_kit.access.roles import Role, make_token

TABLE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
PROTOS = (audit_pb2, questions_pb2, administration_pb2, proof_pb2, gateway_pb2, approvals_pb2, control_pb2)
SERVICES = {service.name: service for pb in PROTOS for service in pb.DESCRIPTOR.services_by_name.values()}
METHODS = {f"{service.name}/{method.name}": method for service in SERVICES.values() for method in service.methods}
Metadata = tuple[tuple[str, str | bytes], ...]
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].methods
ANSWER_SECONDS = 3
"""A stream that is let in may say nothing for ever; after this long without a refusal it counts as let in."""


def table() -> dict[str, set[str]]:
    """The roles of each RPC, from the document."""
    lines = re.findall(r"^\| (?:RPC|`(\w+/\w+)`) \|(.*)\|$", TABLE.read_text(), re.MULTILINE)
    (_, head), *rows = lines
    roles = [cell.strip() for cell in head.split("|")]
    return {
        name: {role for role, cell in zip(roles, row.split("|"), strict=True) if cell.strip()} for name, row in rows
    }


def test_the_table_has_every_rpc_and_no_other():
    assert table().keys() == METHODS.keys()


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


async def outcome(channel: grpc.aio.Channel, method: Any, metadata: Metadata, seconds: float) -> grpc.StatusCode:
    kind = "_".join("stream" if side else "unary" for side in (method.client_streaming, method.server_streaming))
    call = getattr(channel, kind)(f"/{method.containing_service.full_name}/{method.name}")
    # A stream is opened and nothing written: a write that meets the refusal would hide it (grpc/grpc#36066).
    request = () if method.client_streaming else (b"",)
    started = call(*request, metadata=metadata, timeout=seconds)
    if method.server_streaming:
        try:
            await started.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        started.cancel()
        return grpc.StatusCode.OK
    return cast(grpc.StatusCode, await started.code())


@pytest.fixture
async def tokens_and_addresses(make_pair, tmp_path):
    pair = await make_pair(Script())
    made = {str(role): make_token(role, [role]) for role in Role}
    made["expired"] = make_token("expired", list(Role), datetime.now(UTC) - timedelta(seconds=1))
    path = tmp_path / "callers.toml"
    path.write_text("\n".join(table for _, table in made.values()))
    audit = pair.start_audit(AUDIT_TOKENS_FILE=str(path))
    gateway = pair.start_gateway(GATEWAY_TOKENS_FILE=str(path))
    tokens = {name: token for name, (token, _) in made.items()}
    return tokens, {"onrecord.audit.v1": audit.address, "onrecord.gateway.v1": gateway.address}


def strangers(tokens: Mapping[str, str]) -> dict[str, Metadata]:
    """What says nobody's name, though it may hold an admin's token."""
    admin = tokens["admin"]
    return {
        "nothing": (),
        "a guess": bearer("guessed"),
        "an expired token": bearer(tokens["expired"]),
        "no token": bearer(""),
        "a part of a token": bearer(admin[:-1]),
        "a token and more": bearer(f"{admin}x"),
        "two tokens": bearer(f"guessed, Bearer {admin}"),
        "the hash of a token": bearer(hashlib.sha256(admin.encode()).hexdigest()),
        "a name": bearer("admin"),
        "another scheme": (("authorization", f"Basic {admin}"),),
        "a second header": (*bearer("guessed"), *bearer(admin)),
        "a binary header": (("authorization-bin", f"Bearer {admin}".encode()),),
        "another header": (("x-authorization", f"Bearer {admin}"), ("cookie", admin)),
    }


@pytest.mark.long
async def test_each_role_may_what_the_table_says_and_nothing_else(tokens_and_addresses):
    tokens, addresses = tokens_and_addresses
    cells = [(name, role, role in allowed) for name, allowed in table().items() for role in Role]
    assert len(cells) == len(METHODS) * len(Role)
    async with (
        grpc.aio.insecure_channel(addresses["onrecord.audit.v1"]) as audit,
        grpc.aio.insecure_channel(addresses["onrecord.gateway.v1"]) as gateway,
    ):
        channels = {"onrecord.audit.v1": audit, "onrecord.gateway.v1": gateway}

        def of(name: str) -> grpc.aio.Channel:
            return channels[METHODS[name].containing_service.file.package]

        outcomes = await asyncio.gather(
            *(
                outcome(of(name), METHODS[name], bearer(tokens[role]), ANSWER_SECONDS if allowed else 30)
                for name, role, allowed in cells
            )
        )
        wrong = [
            (name, role, code.name)
            for (name, role, allowed), code in zip(cells, outcomes, strict=True)
            if (code in REFUSALS if allowed else code is not grpc.StatusCode.PERMISSION_DENIED)
        ]
        assert wrong == []
        shown = [(name, who, shows) for name in METHODS for who, shows in strangers(tokens).items()]
        codes = await asyncio.gather(*(outcome(of(name), METHODS[name], shows, 30) for name, _, shows in shown))
        let_in = [
            (name, who, code.name)
            for (name, who, _), code in zip(shown, codes, strict=True)
            if code is not grpc.StatusCode.UNAUTHENTICATED
        ]
        assert let_in == []
        for channel in channels.values():
            assert {await outcome(channel, method, (), 30) for method in HEALTH} == {grpc.StatusCode.OK}
