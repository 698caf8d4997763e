"""serve and health."""

from typing import Annotated

from audit_svc.settings import AuditSettings
from audit_svc.terminal.running import AnyDatabase, error_is_exit_code_1, named_database
from service_kit.run import prepare_process
from service_kit.settings import load_settings, unknown_variables
from service_kit.terminal.command import Option
from service_kit.terminal.health import Live, Timeout, tell_health
from service_kit.terminal.printing import Json
from service_kit.unanswered import LEDGER


def serve(
    db: AnyDatabase = None,
    migrate: Annotated[bool, Option(help="Apply pending migrations; without it refuse to start.")] = True,
    create: Annotated[bool, Option("--create", help="Begin an empty ledger where a served one is missing.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = _settings(db)
    prepare_process(settings)
    from audit_svc.server import serve as serve_ledger  # after the settings, so that wrong ones are told at once

    with error_is_exit_code_1():
        serve_ledger(settings, apply_migrations=migrate, create=create)


def health(
    target: Annotated[str | None, Option(help="host:port; AUDIT_LISTEN when not given.")] = None,
    timeout: Timeout = 3.0,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Ask a running service whether it serves; exit code 0 when it does, else 1."""
    settings = load_settings(AuditSettings)
    tell_health(target or settings.listen, timeout, settings.server_files, LEDGER, live=live, as_json=as_json)


def _settings(db: str | None) -> AuditSettings:
    settings = load_settings(AuditSettings, lambda: unknown_variables("AUDIT_", AuditSettings))
    return settings if db is None else settings.model_copy(update={"db": named_database(db)})
