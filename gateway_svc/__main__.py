"""gateway-svc: the service, and a client of it for people."""

import asyncio
import os

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
def serve() -> None:
    """Serve until SIGTERM. Settings come from environment variables GATEWAY_… (see docs/operations.md)."""
    settings = load_settings(GatewaySettings)
    prepare_process(settings)
    os.umask(0o077)
    from gateway_svc.server import serve as serve_gateway  # after the settings, so that wrong ones are told at once

    asyncio.run(serve_gateway(settings))


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
