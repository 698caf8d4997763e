"""The pages' server: the application behind its guard, until a signal comes."""

import asyncio
import signal
from collections.abc import Callable, Iterable

from onrecord.audit.v1 import proof_pb2_grpc, questions_pb2_grpc
from onrecord.gateway.v1 import approvals_pb2_grpc, control_pb2_grpc

from audit_svc.ui.app import build
from audit_svc.ui.guard import Guard, csrf_of
from audit_svc.ui.remote import Remote
from service_kit.http_server import serve_http
from service_kit.unanswered import GATEWAY, LEDGER

MOST_CONNECTIONS = 200
_OF_LEDGER = [questions_pb2_grpc.QuestionServiceStub, proof_pb2_grpc.ProofServiceStub]
_OF_GATEWAY = [approvals_pb2_grpc.ApprovalServiceStub, control_pb2_grpc.ControlServiceStub]
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


async def serve(
    ledger: str,
    gateway: str | None,
    listen: str,
    token: str,
    names: Iterable[str],
    on_listening: Callable[[str], None],
) -> None:
    """Answers until SIGTERM or SIGINT. No line of a log has a token or what somebody asked for.

    Args:
        ledger: "host:port" of the audit service.
        gateway: "host:port" of a gateway; None without one.
        listen: "host:port"; port 0 takes a free one.
        token: what lets a browser in.
        names: more names under which browsers come, as they stand in the Host header.
        on_listening: called with the address, once it is listened on.

    Raises:
        SystemExit, Exit: listen cannot be had, or a file of the access options cannot be used; the log says why.
    """
    remotes = [Remote("the ledger", LEDGER, ledger, _OF_LEDGER)]
    if gateway:
        peer = GATEWAY._replace(named_by="--gateway or GATEWAY_LISTEN")
        remotes.append(Remote("the gateway", peer, gateway, _OF_GATEWAY))
    guard = Guard(build(remotes[0], remotes[1] if gateway else None, csrf_of(token)), token)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        async with serve_http(guard, listen, None, MOST_CONNECTIONS) as address:
            guard.hosts = frozenset({address.lower(), *_local(address), *(name.lower() for name in names)})
            on_listening(address)
            await ended.wait()
    finally:
        for remote in remotes:
            await remote.close()


def _local(address: str) -> Iterable[str]:
    """The names of this machine for itself, where only it can connect."""
    host, _, port = address.rpartition(":")
    return [f"{name}:{port}" for name in LOCAL_NAMES] if host in LOCAL_NAMES else []
