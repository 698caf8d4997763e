"""ui: the record as pages."""

import asyncio
from pathlib import Path
from typing import Annotated

from audit_svc.settings import AuditSettings
from audit_svc.terminal.options import Target, address_of
from recording.channel.options import is_local
from recording.channel.token import watch_token
from recording.channel.watched import WrongFile
from service_kit.client import refuse_wrong_target
from service_kit.extras import is_missing
from service_kit.observing.logs import configure_logging
from service_kit.settings import load_settings
from service_kit.terminal.command import BadParameter, Option, echo
from service_kit.terminal.failures import Failed


def ui(
    target: Target = None,
    gateway: Annotated[
        str | None,
        Option(
            envvar="GATEWAY_LISTEN", help="A running gateway, host:port: approvals, stops, and whether it can record."
        ),
    ] = None,
    listen: Annotated[str, Option(help="host:port; port 0 takes a free one.")] = "127.0.0.1:8001",
    login_file: Annotated[
        Path | None, Option(help="A file that holds the login token; a new one is made when not given.")
    ] = None,
    allow_network: Annotated[bool, Option("--allow-network", help="Listen beyond loopback, in plain text.")] = False,
    host: Annotated[
        list[str] | None,
        Option("--host", help="A name under which browsers come, as in their Host header; may be repeated."),
    ] = None,
) -> None:
    """Show a running ledger as pages, to whoever has the login token, with the role of the credential given here.

    Needs the extra `ui`.
    """
    try:
        from audit_svc.ui import guard, serve
    except ImportError:
        raise Failed(f"pages need what is not here: {is_missing('ui')}") from None
    if not allow_network and not is_local(listen):
        raise BadParameter(
            f"{listen} can be reached from elsewhere, and pages and token would travel in plain text: "
            "listen on 127.0.0.1, or say --allow-network behind a proxy with TLS"
        )
    if not is_local(listen) and not host:
        raise BadParameter("say by --host under which name browsers come, such as onrecord.example.org")
    if gateway:
        refuse_wrong_target(gateway, "--gateway")
    settings = load_settings(AuditSettings)
    # Whoever starts pages is told of their address by the line on stdout.
    configure_logging(settings.log_level if "log_level" in settings.model_fields_set else "warning", settings.log_style)
    token = _token(login_file) if login_file else guard.new_token()

    def tell(address: str) -> None:
        echo(f"http://{address}/" if login_file else f"http://{address}/?token={token}")

    asyncio.run(serve.serve(address_of(target), gateway, listen, token, host or (), tell))


def _token(path: Path) -> str:
    try:
        return watch_token(path).current()
    except WrongFile as error:
        raise Failed(str(error), 2) from None
