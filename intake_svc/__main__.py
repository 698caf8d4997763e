"""intake-svc: puts agents on the record that export OpenTelemetry."""

import asyncio
import os
from typing import Annotated

import typer

from intake_svc.settings import IntakeSettings
from service_kit.access.roles import Role
from service_kit.access.token_command import add_token_command
from service_kit.client import client_options, current_access
from service_kit.probe import probe
from service_kit.run import prepare_process
from service_kit.settings import load_settings

app = typer.Typer(name="intake-svc", help=__doc__, no_args_is_help=True, pretty_exceptions_show_locals=False)
app.callback()(client_options)
add_token_command(app, "INTAKE_TOKENS_FILE", (Role.PRODUCER, Role.ADMIN))


@app.command()
def serve() -> None:
    """Serve until SIGTERM. Settings come from environment variables INTAKE_… (see docs/operations.md)."""
    settings = load_settings(IntakeSettings)
    prepare_process(settings)
    os.umask(0o077)
    from intake_svc.server import serve as serve_intake  # after the settings, so that wrong ones are told at once

    asyncio.run(serve_intake(settings))


@app.command()
def health(
    target: Annotated[str | None, typer.Option(help="host:port; INTAKE_LISTEN when not given.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 3.0,
    live: Annotated[bool, typer.Option("--live", help="Whether it answers, even that it cannot serve now.")] = False,
) -> None:
    """Ask a running service whether it serves; exit code 0 when it does, else 1."""
    settings = load_settings(IntakeSettings)
    serves, said = probe(target or settings.listen, timeout, current_access(), settings.server_files, live=live)
    typer.echo(said, err=not serves)
    raise typer.Exit(0 if serves else 1)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
