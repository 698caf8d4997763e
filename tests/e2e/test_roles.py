"""Every role calls every RPC of both services, and may what the table in docs/security.md says, and nothing else."""

import asyncio
import re
from pathlib import Path
from typing import cast

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2

from demo.script import Script
from service_kit.access.roles import Role, make_token

TABLE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
SERVICES = {
    service.name: service for pb in (audit_pb2, gateway_pb2) for service in pb.DESCRIPTOR.services_by_name.values()
}
METHODS = {f"{service.name}/{method.name}": method for service in SERVICES.values() for method in service.methods}
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
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


async def outcome(channel: grpc.aio.Channel, name: str, token: str | None, seconds: float) -> grpc.StatusCode:
    method = METHODS[name]
    kind = "_".join("stream" if side else "unary" for side in (method.client_streaming, method.server_streaming))
    call = getattr(channel, kind)(f"/{method.containing_service.full_name}/{method.name}")
    metadata = (("authorization", f"Bearer {token}"),) if token is not None else None
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
    made = {role: make_token(role, [role]) for role in Role}
    path = tmp_path / "callers.toml"
    path.write_text("\n".join(table for _, table in made.values()))
    audit = pair.start_audit(AUDIT_TOKENS_FILE=str(path))
    gateway = pair.start_gateway(GATEWAY_TOKENS_FILE=str(path))
    tokens = {str(role): token for role, (token, _) in made.items()}
    return tokens, {"AuditService": audit.address, "GatewayService": gateway.address}


async def test_each_role_may_what_the_table_says_and_nothing_else(tokens_and_addresses):
    tokens, addresses = tokens_and_addresses
    cells = [(name, role, role in allowed) for name, allowed in table().items() for role in tokens]
    assert len(cells) == len(METHODS) * len(Role)
    async with (
        grpc.aio.insecure_channel(addresses["AuditService"]) as audit,
        grpc.aio.insecure_channel(addresses["GatewayService"]) as gateway,
    ):
        channels = {"AuditService": audit, "GatewayService": gateway}
        outcomes = await asyncio.gather(
            *(
                outcome(channels[name.partition("/")[0]], name, tokens[role], ANSWER_SECONDS if allowed else 30)
                for name, role, allowed in cells
            )
        )
        wrong = [
            (name, role, code.name)
            for (name, role, allowed), code in zip(cells, outcomes, strict=True)
            if (code in REFUSALS if allowed else code is not grpc.StatusCode.PERMISSION_DENIED)
        ]
        assert wrong == []
        strangers = [(name, token) for name in METHODS for token in (None, "guessed")]
        codes = await asyncio.gather(
            *(outcome(channels[name.partition("/")[0]], name, token, 30) for name, token in strangers)
        )
    assert set(codes) == {grpc.StatusCode.UNAUTHENTICATED}
