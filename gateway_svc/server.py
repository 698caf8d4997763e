"""Serves what assembly built, drains it, closes it."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import replace
from functools import partial

import grpc
import structlog
from onrecord.gateway.v1 import approvals_pb2_grpc, control_pb2_grpc, gateway_pb2_grpc

from gateway_svc.assembly import assemble
from gateway_svc.errors import SettingsError
from gateway_svc.gateway import Gateway
from gateway_svc.http_client import check_trusted
from gateway_svc.servicer import RETRY_AFTER_SECONDS, ROLES, STATUSES
from gateway_svc.settings import GatewaySettings, unknown_settings
from gateway_svc.workers.counts import shared_limits
from gateway_svc.workers.peers import Peers
from gateway_svc.workers.routing import RoutingInterceptor
from gateway_svc.workers.serving import WorkerHealth, serving_workers
from gateway_svc.workers.worker import Worker
from gateway_svc.workspace import check_state, check_workspace
from service_kit.access.guard import open_guard
from service_kit.access.interceptor import rules_for
from service_kit.collector import tune_collector
from service_kit.errors import ErrorInterceptor
from service_kit.observing.logs import for_people
from service_kit.observing.metrics import new_registry
from service_kit.paging import keep_key
from service_kit.run import Service, run_service
from service_kit.server import refuse_taken
from service_kit.settings import EXIT_WRONG_SETTINGS, check_disk, describe_settings

RULES = {method: roles for service, of in ROLES.items() for method, roles in rules_for(service, of).items()}

log = structlog.get_logger(__name__)


async def serve(settings: GatewaySettings, worker: Worker | None = None) -> None:
    """Serves until SIGTERM or SIGINT; then lets the turns end, sends their rows, and returns.

    worker: which of the workers of a gateway this process is; None where it is the whole gateway.

    Raises:
        SystemExit: with code 2 when a setting or a file cannot be used, with code 1 when the address cannot be had.
    """
    given = for_people(settings.log_style)
    described = describe_settings(settings, only_given=given) | _describe_engines(settings, only_given=given)
    log.info("service.starting", **described)
    for told in unknown_settings():
        log.warning("settings.unknown", hint=told)
    if worker is None:  # workers share an address, which their supervisor holds
        refuse_taken(settings.listen, settings.metrics_listen)
    parts = [settings, *settings.engines.values()]
    with _refusals_told():
        check_state(settings.workspace, settings.state_dir)
        check_workspace(settings.workspace, parts)
        check_disk(*parts)
        check_trusted()
        guard, registry = open_guard(settings, RULES, shared_limits(worker.table) if worker else None), new_registry()
        peers = Peers(worker) if worker else None
        gateway = assemble(settings, registry, peers)
        if settings.sessions is None:  # else gateways share one
            keep_key(settings.state_dir / "page-key")
    look = asyncio.Event()
    if gateway.audited:
        gateway.audited.record.logger.on_refusal = partial(asyncio.get_running_loop().call_soon_threadsafe, look.set)
    errors = ErrorInterceptor(STATUSES, RETRY_AFTER_SECONDS)
    service = Service(
        names=tuple(ROLES),
        add_to=partial(_add_services, gateway),
        errors=errors,
        check=gateway.health,
        check_now=look,
        begin_drain=gateway.begin_drain,
        drain=gateway.drain,
        detail=gateway.detail,
    )
    async with AsyncExitStack() as stack:
        with _refusals_told():
            await stack.enter_async_context(gateway.started())
        tune_collector()
        if worker is None or peers is None:
            if gateway.conversations.calls is not None:
                from gateway_svc.replicas import ReplicasInterceptor  # which needs psycopg

                passing = ReplicasInterceptor(gateway.conversations.calls, gateway.servicer.attach_to_gone)
                service = replace(service, routing=(passing,))
            await run_service(service, settings, guard, registry)
            return
        health = WorkerHealth(gateway, worker)
        as_worker = replace(
            service,
            check=health.check,
            detail=health.detail,
            begin_drain=health.begin_drain,
            routing=(RoutingInterceptor(peers, gateway.turns.knows),),
            shares_port=True,
            metrics_socket=worker.page if settings.metrics_listen else None,
        )
        async with aclosing(peers), serving_workers(gateway, worker, errors):
            await run_service(as_worker, settings.model_copy(update={"metrics_listen": ""}), guard, registry)


@contextmanager
def _refusals_told() -> Iterator[None]:
    """What is wrong with the settings, or with a file, is told in one line, and the process ends."""
    try:
        yield
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_WRONG_SETTINGS) from None


def _add_services(gateway: Gateway, server: grpc.aio.Server) -> None:
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(gateway.servicer, server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(gateway.control, server)
    approvals_pb2_grpc.add_ApprovalServiceServicer_to_server(gateway.approvals, server)


def _describe_engines(settings: GatewaySettings, *, only_given: bool) -> dict[str, str]:
    """The settings of the engines for one line in the log."""
    return {
        f"{name}_{field}": value
        for name, chosen in settings.engines.items()
        for field, value in describe_settings(chosen, only_given=only_given).items()
    }
