"""Clients that never read what a stream tells them: every streaming RPC of both services, and health's watchers."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from onrecord.audit.v1 import administration_pb2, audit_pb2, audit_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from audit_svc.services import ROLES as AUDIT_ROLES
from demo.processes import Service
from gateway_svc.servicer import ROLES as GATEWAY_ROLES
from service_kit.access.request_parts import request_type
from tests.hostile.conftest import SERVICES, Start
from tests.hostile.eager import EagerModel
from tests.hostile.held import WATCHED
from tests.hostile.honest import honest_caller
from tests.hostile.unread import unread

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

PEERS = 50
HELD_SECONDS = 1
"""How long each case's clients stay. Nothing is waited for: what is asserted holds however little happens in it."""
ROWS, AT_ONCE, PADDING = 10_000, 1000, 1000
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
ALL_FILES = reflection_pb2.ServerReflectionRequest(file_containing_symbol="onrecord.audit.v1.AuditService")


def streams(module: str) -> list[tuple[str, bool]]:
    """Every RPC that answers by a stream, from the descriptors, and whether it is also asked by one."""
    roles = {"audit_svc": AUDIT_ROLES, "gateway_svc": GATEWAY_ROLES}[module]
    found = [(WATCH, False), (REFLECTION, True)]
    for service, allowed in roles.items():
        for name in allowed:
            asked = request_type(f"/{service}/{name}")
            assert asked is not None
            method = asked.file.pool.FindServiceByName(service).methods_by_name[name]
            if method.server_streaming:
                found.append((f"/{service}/{name}", method.client_streaming))
    return found


def record(rows: int) -> audit_pb2.RecordRequest:
    """Rows that are large as the ledger allows."""
    now_ms = time.time_ns() // 1_000_000
    told = {"session_id": "s", "tool_name": "bash", "outcome": common_pb2.OUTCOME_SUCCEEDED, "created_at_ms": now_ms}
    summary = '{"command": "' + "x" * PADDING + '"}'
    calls = [audit_pb2.AuditRow(id=f"{now_ms}-{n}", args_summary=summary, **told) for n in range(rows)]  # type: ignore[arg-type]
    return audit_pb2.RecordRequest(row_version=1, tool_calls=calls)


async def requests(service: Service, module: str, stack: AsyncExitStack) -> dict[str, bytes]:
    """What makes each RPC tell much, by its name; others are asked with an empty message."""
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(service.address))
    if module == "audit_svc":
        audit: Any = audit_pb2_grpc.AuditServiceStub(channel)
        for _ in range(ROWS // AT_ONCE):
            assert (await audit.RecordBatch(record(AT_ONCE))).stored == AT_ONCE
        prune = administration_pb2.PruneRequest(created_before_ms=1, dry_run=True)
        return {"Record": record(100).SerializeToString(), "Prune": prune.SerializeToString()}
    gateway: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go", keep_on_disconnect=True))
    stack.callback(turn.cancel)
    turn_id = (await turn.read()).turn_accepted.turn_id
    attach = pb.AttachTurnRequest(turn_id=turn_id)
    return {"RunTurn": pb.RunTurnRequest(input="go").SerializeToString(), "AttachTurn": attach.SerializeToString()}


@pytest.mark.parametrize("module", SERVICES)
async def test_clients_that_read_no_answer_hold_little_and_hold_nobody_up(start: Start, module: str):
    """Also not the end: with clients of each kind that still hold on, SIGTERM is told to who watches, and obeyed."""
    async with EagerModel() as eager, AsyncExitStack() as stack:
        env = {"GATEWAY_OLLAMA_URL": eager.url, "GATEWAY_DRAIN_SECONDS": "3", "AUDIT_DRAIN_SECONDS": "3"}
        service = await asyncio.to_thread(start, module, **env)
        asked = await requests(service, module, stack)
        asked["ServerReflectionInfo"] = ALL_FILES.SerializeToString()
        watched = WATCHED[service.pid]
        watched.begin()
        with honest_caller(service, module):
            for path, by_stream in streams(module):
                began, request = time.monotonic(), asked.get(path.rpartition("/")[2], b"")
                async with unread(service.address, path, request, PEERS, ends=not by_stream):
                    await asyncio.sleep(HELD_SECONDS)
                watched.cases.append((path, began, time.monotonic()))
        assert await asyncio.to_thread(watched.wrong) == []
        for path, by_stream in streams(module):
            request = asked.get(path.rpartition("/")[2], b"")
            await stack.enter_async_context(unread(service.address, path, request, PEERS, ends=not by_stream))
        await end(service)


async def end(service: Service) -> None:
    """SIGTERM, which a client that does read is told of, and which the service obeys."""
    async with grpc.aio.insecure_channel(service.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        service.process.terminate()
        while (await watch.read()).status != health_pb2.HealthCheckResponse.NOT_SERVING:
            pass
        watch.cancel()
    assert await asyncio.to_thread(service.process.wait, 60) == 0, service.stderr_text()[-2000:]
