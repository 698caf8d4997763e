"""The commands serve and health."""

import os
from typing import Annotated

from intake_svc.settings import IntakeSettings
from service_kit import event_loop
from service_kit.run import prepare_process
from service_kit.settings import load_settings, unknown_variables
from service_kit.terminal.command import Option
from service_kit.terminal.health import Live, Timeout, tell_health
from service_kit.terminal.printing import Json
from service_kit.unanswered import DOOR


def serve() -> None:
    """Serve until SIGTERM. Settings come from environment variables INTAKE_… (see docs/operations.md)."""
    settings = load_settings(IntakeSettings, lambda: unknown_variables("INTAKE_", IntakeSettings))
    prepare_process(settings)
    os.umask(0o077)
    from intake_svc.server import serve as serve_intake  # after the settings, so that wrong ones are told at once

    event_loop.run(serve_intake(settings))


def health(
    target: Annotated[str | None, Option(help="host:port; INTAKE_LISTEN when not given.")] = None,
    timeout: Timeout = 3.0,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Ask a running service whether it serves; exit code 0 when it does, else 1."""
    settings = load_settings(IntakeSettings)
    tell_health(target or settings.listen, timeout, settings.server_files, DOOR, live=live, as_json=as_json)
