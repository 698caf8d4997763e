"""ui: the ledger as pages."""

from pathlib import Path
from typing import Annotated

from audit_svc.settings import AuditSettings
from audit_svc.sqlite.open.files import reading
from audit_svc.terminal.running import Database, error_is_exit_code_1, ledger_path, say_unseen
from recording.channel.options import is_local
from recording.channel.token import watch_token
from recording.channel.watched import WrongFile
from service_kit.observing.logs import configure_logging
from service_kit.settings import load_settings
from service_kit.terminal.command import BadParameter, Exit, Option, echo


def ui(
    db: Database = None,
    listen: Annotated[str, Option(help="host:port; port 0 takes a free one.")] = "127.0.0.1:8001",
    login_file: Annotated[
        Path | None, Option(help="A file that holds the login token; a new one is made when not given.")
    ] = None,
    allow_network: Annotated[bool, Option("--allow-network", help="Listen beyond loopback, in plain text.")] = False,
) -> None:
    """Show the ledger as pages with charts, read-only, to whoever has the token. Needs the extra `ui`."""
    try:
        from audit_svc.ui import middleware, serve
    except ImportError as missing:
        echo(f"audit-svc: {missing.name} is not installed; in a checkout, .venv/bin/pip install -e '.[ui]'", err=True)
        raise Exit(1) from None
    if not allow_network and not is_local(listen):
        raise BadParameter(
            f"{listen} can be reached from elsewhere, and pages and token would travel in plain text: "
            "listen on 127.0.0.1, or say --allow-network behind a proxy with TLS"
        )
    settings = load_settings(AuditSettings)
    configure_logging(settings.log_level, settings.log_style)
    with error_is_exit_code_1():
        path = ledger_path(db)
        with reading(path, on_unseen=say_unseen):
            pass  # which refuses what is no ledger of this version
        token = _token(login_file) if login_file else middleware.new_token()
        host, _, port = listen.rpartition(":")
        try:
            listening = serve.listen(host.strip("[]"), int(port))
        except (OSError, ValueError) as error:
            echo(f"audit-svc: {listen} cannot be listened on ({error})", err=True)
            raise Exit(1) from None
        port = listening.getsockname()[1]
        built = serve.build(path, token)
        shown = f"http://{host}:{port}/-/ledger"
        echo(shown if login_file else f"{shown}?token={token}")
        serve.serve(*built, listening)


def _token(path: Path) -> str:
    try:
        return watch_token(path).current()
    except WrongFile as error:
        echo(f"audit-svc: {error}", err=True)
        raise Exit(2) from None
