"""The gateway put together from its settings, served, and taken apart."""

import sys

import structlog
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from gateway_svc.answers import Answers
from gateway_svc.errors import SettingsError
from gateway_svc.recorded import open_recorded
from gateway_svc.servicer import RETRY_AFTER_SECONDS, STATUSES, GatewayServicer
from gateway_svc.sessions import Sessions
from gateway_svc.settings import GatewaySettings
from gateway_svc.turn import Runner
from gateway_svc.turns import Turns
from service_kit.errors import ErrorInterceptor
from service_kit.server import add_health, build_server, serve
from service_kit.settings import EXIT_WRONG_SETTINGS, describe_settings

SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name
log = structlog.get_logger(__name__)


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT; then cancels the turns, sends their rows, and returns.

    Raises:
        SystemExit: with code 2 when a setting cannot be carried out, with code 1 when the address cannot be had.
    """
    log.info("service.starting", **describe_settings(settings))
    answers = Answers(settings.answer_seconds)
    try:
        sessions = Sessions(settings.state_dir)
        recorded = open_recorded(settings, answers)
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_WRONG_SETTINGS) from None
    runners: dict[str, Runner] = {agent.name: agent for agent in recorded.agents}
    turns = Turns(sessions, runners, settings.default_engine, recorded.record_session)
    servicer = GatewayServicer(turns, sessions, answers, runners, settings.default_engine)

    async def drain() -> None:
        await turns.cancel_all()
        await recorded.record.drain(settings.drain_seconds)

    recorded.record.start()
    try:
        server = build_server([ErrorInterceptor(STATUSES, RETRY_AFTER_SECONDS)])
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)
        health = await add_health(server, [SERVICE])
        await serve(server, health, listen=settings.listen, grace_seconds=settings.drain_seconds, on_drain=drain)
    finally:
        await turns.cancel_all()  # those that the drain time was too short for: their rows must still reach the spool
        for runner in runners.values():
            await runner.aclose()
        await recorded.record.aclose()
