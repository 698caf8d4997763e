"""gateway-svc: the service, and a client of it for people."""

import asyncio
import os
import signal
from typing import Annotated

import structlog
import typer

from gateway_svc import approving, dead_letters, terminal
from gateway_svc.rules import commands as rules
from gateway_svc.settings import GatewaySettings
from gateway_svc.stopping import commands as stopping
from gateway_svc.tool_list import tools
from service_kit.access.roles import Role
from service_kit.access.token_command import add_token_command
from service_kit.run import prepare_process
from service_kit.settings import load_settings

app = typer.Typer(name="gateway-svc", help=__doc__, no_args_is_help=True, pretty_exceptions_show_locals=False)
terminal.add_commands(app)
approving.add_commands(app)
stopping.add_commands(app)
app.command()(tools)
app.add_typer(dead_letters.commands, name="dead-letters")
app.add_typer(rules.commands, name="rules")
add_token_command(app, "GATEWAY_TOKENS_FILE", (Role.CALLER, Role.APPROVER, Role.ADMIN))


@app.command()
def serve(
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that serve together; 0: the cores. [env: GATEWAY_WORKERS]")
    ] = None,
) -> None:
    """Serve until SIGTERM. Settings come from environment variables GATEWAY_… (see docs/operations.md)."""
    if workers is not None:
        os.environ["GATEWAY_WORKERS"] = str(workers)
    settings = load_settings(GatewaySettings)
    prepare_process(settings)
    os.umask(0o077)
    if (number := settings.number_of_workers) > 1:
        from gateway_svc.workers.supervisor import supervise

        raise SystemExit(supervise(settings, number))
    from gateway_svc.server import serve as serve_gateway  # after the settings, so that wrong ones are told at once

    asyncio.run(serve_gateway(settings))


@app.command(hidden=True)
def worker() -> None:
    """Serve as one of the workers of a gateway. `serve --workers` starts them."""
    from gateway_svc.workers.worker import Worker

    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD))
    if (own := Worker.from_environment()) is None:
        raise typer.BadParameter("a worker is started by `gateway-svc serve --workers N`")
    settings = load_settings(GatewaySettings)
    prepare_process(settings)
    structlog.contextvars.bind_contextvars(worker=own.slot)
    os.umask(0o077)
    from gateway_svc.server import serve as serve_gateway

    try:
        asyncio.run(serve_gateway(settings, own))
    finally:
        own.leave()


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
