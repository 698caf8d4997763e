"""What workers share: numbers that hold over all of them, and ids that every worker places alike."""

import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onrecord.gateway.v1 import approvals_pb2 as pb

from gateway_svc.approvals import page_of
from gateway_svc.settings import GatewaySettings
from gateway_svc.workers.identity import CALLER, SECRET, IdentityInterceptor
from gateway_svc.workers.supervisor import supervise
from gateway_svc.workers.table import Field, Table
from gateway_svc.workers.worker import home_of
from service_kit.access.callers import current_caller
from service_kit.errors import ErrorInterceptor
from service_kit.paging import keep_key
from service_kit.server import build_server
from service_kit.settings import EXIT_WRONG_SETTINGS
from tests.support.small_disk import mounted_at


def test_a_limit_holds_over_all_workers_also_when_they_take_at_once(tmp_path: Path) -> None:
    taken: list[bool] = []

    def take(slot: int) -> None:
        with Table(tmp_path / "table", 4, slot) as table:
            taken.extend(table.try_take(Field.TURNS, 100) for _ in range(50))

    threads = [threading.Thread(target=take, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(True) == 100


def test_what_a_dead_worker_held_is_free_again(tmp_path: Path) -> None:
    with Table(tmp_path / "table", 2, 0) as one, Table(tmp_path / "table", 2, 1) as other:
        assert one.try_take(Field.TURNS, 1)
        assert not other.try_take(Field.TURNS, 1)
        other.clear(0)
        assert other.try_take(Field.TURNS, 1)
        other.release(Field.TURNS)
        assert one.sum(Field.TURNS) == 0


def test_a_callers_rate_is_one_over_all_workers(tmp_path: Path) -> None:
    with Table(tmp_path / "table", 2, 0) as one, Table(tmp_path / "table", 2, 1) as other:
        levels = [table.take_token("ann", 1e-9, 3.0) for table in (one, other, one, other)]
        assert [level >= 1 for level in levels] == [True, True, True, False]
        assert other.take_token("bob", 1e-9, 3.0) >= 1, "another caller has its own"


FILLED = """
import sys
from pathlib import Path
from gateway_svc.workers.table import Field, Table
from tests.support.small_disk import hog

with Table(Path(sys.argv[1], "table"), 2, 0) as table:
    hog(Path(sys.argv[1]))
    table.set(Field.TURNS, 1)
    table.take_token("ann", 1.0, 3.0)
"""


def test_a_disk_that_is_filled_later_kills_no_worker(tmp_path: Path) -> None:
    with mounted_at(tmp_path / "disk") as disk:
        subprocess.run([sys.executable, "-c", FILLED, str(disk)], check=True, timeout=30)


def test_where_no_temporary_folder_can_be_made_workers_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    for name, value in {"LISTEN": "127.0.0.1:0", "OLLAMA_URL": "http://127.0.0.1:1", "OLLAMA_MODEL": "m"}.items():
        monkeypatch.setenv(f"GATEWAY_{name}", value)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with pytest.raises(SystemExit) as ended:
            supervise(GatewaySettings(), 2)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert ended.value.code == EXIT_WRONG_SETTINGS
    assert capsys.readouterr().err.startswith(
        "TMPDIR: workers share files in a folder for temporary files, and have none"
    )


def test_ids_are_spread_over_the_workers_and_each_has_one_home() -> None:
    homes = [home_of(f"session-{number}", 3) for number in range(300)]
    assert homes == [home_of(f"session-{number}", 3) for number in range(300)]
    assert all(homes.count(slot) > 50 for slot in range(3))


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_pages_of_several_workers_are_one_list_in_order_without_gaps(tmp_path: Path, size: int) -> None:
    keep_key(tmp_path / "key")
    calls = [pb.PendingToolCall(tool_call_id=f"{number:02}", asked_at_ms=number // 2) for number in range(20)]
    held = [calls[0::3], calls[1::3], calls[2::3]]

    def page_of_one(
        request: pb.ListPendingToolCallsRequest, own: list[pb.PendingToolCall], after: str
    ) -> pb.ListPendingToolCallsResponse:
        rest = [call for call in own if call.tool_call_id > after]
        return page_of(request, [pb.ListPendingToolCallsResponse(tool_calls=rest)])

    listed: list[str] = []
    while True:
        request = pb.ListPendingToolCallsRequest(page_size=size)
        pages = [page_of_one(request, own, listed[-1] if listed else "") for own in held]
        page = page_of(request, pages)
        listed += [call.tool_call_id for call in page.tool_calls]
        assert len(page.tool_calls) <= size
        if not page.next_page_token:
            break
    assert listed == [call.tool_call_id for call in calls]


class Asked(health_pb2_grpc.HealthServicer):
    """Remembers who called."""

    def __init__(self) -> None:
        self.by: list[object] = []

    async def Check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:  # noqa: N802 - the proto's
        self.by.append(current_caller())
        return health_pb2.HealthCheckResponse()


async def test_a_workers_own_socket_believes_who_knows_the_secret_alone(tmp_path: Path) -> None:
    asked, told = Asked(), (CALLER, b'{"name": "ops", "roles": ["admin"]}')
    server = build_server([ErrorInterceptor({}), IdentityInterceptor(b"secret")])
    health_pb2_grpc.add_HealthServicer_to_server(asked, server)
    server.add_insecure_port(f"unix:{tmp_path}/0.sock")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/0.sock") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        check = stub.Check
        for shown in ((), ((SECRET, b""),), ((SECRET, b"guessed"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await check(health_pb2.HealthCheckRequest(), metadata=(*shown, told))
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert not asked.by
        await check(health_pb2.HealthCheckRequest(), metadata=((SECRET, b"secret"), told))
        await check(health_pb2.HealthCheckRequest(), metadata=((SECRET, b"secret"),))
    await server.stop(0)
    assert [getattr(caller, "name", None) for caller in asked.by] == ["ops", None]
