"""The commands serve and worker."""

import os
import signal
from typing import Annotated

import structlog

from gateway_svc.settings import GatewaySettings, unknown_settings
from service_kit import event_loop
from service_kit.run import END_SIGNALS, prepare_process
from service_kit.settings import load_settings
from service_kit.terminal.command import BadParameter, Option


def serve(
    workers: Annotated[
        int | None, Option(min=0, help="Processes that serve together; 0: the cores. [GATEWAY_WORKERS]")
    ] = None,
) -> None:
    """Serve until SIGTERM. Settings come from environment variables GATEWAY_… (see docs/operations.md)."""
    if workers is not None:
        os.environ["GATEWAY_WORKERS"] = str(workers)
    settings = load_settings(GatewaySettings, unknown_settings)
    prepare_process(settings)
    os.umask(0o077)
    if (number := settings.number_of_workers) > 1:
        from gateway_svc.workers.supervisor import supervise

        raise SystemExit(supervise(settings, number))
    from gateway_svc.server import serve as serve_gateway  # after the settings, so that wrong ones are told at once

    event_loop.run(serve_gateway(settings))


def worker() -> None:
    """Serve as one of the workers of a gateway. `serve --workers` starts them."""
    from gateway_svc.workers.worker import Worker

    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*END_SIGNALS, signal.SIGCHLD))
    if (own := Worker.from_environment()) is None:
        raise BadParameter("a worker is started by `gateway-svc serve --workers N`")
    settings = load_settings(GatewaySettings)
    prepare_process(settings)
    structlog.contextvars.bind_contextvars(worker=own.slot)
    os.umask(0o077)
    from gateway_svc.server import serve as serve_gateway

    try:
        event_loop.run(serve_gateway(settings, own))
    finally:
        own.leave()
