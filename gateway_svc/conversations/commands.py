"""Commands on the sessions in a state directory, for whoever may read it; beside a running gateway or without."""

import os
import sys
from pathlib import Path
from typing import Annotated

from gateway_svc.settings import StateSettings
from service_kit.printable import json_text, printable
from service_kit.settings import load_settings
from service_kit.terminal.command import Exit, Option, echo
from service_kit.terminal.failures import Failed

EXIT_DAMAGED = 1


def check(as_json: Annotated[bool, Option("--json", help="Print one JSON object a line.")] = False) -> None:
    """Look through the files of all sessions; the exit code is 1 if anything is damaged or missing."""
    from gateway_svc.conversations.files import check as files_check  # other commands need not load it

    damaged = 0
    for finding in files_check.check(_files()):
        damaged += finding.is_damage
        if as_json:
            sys.stdout.write(json_text(finding._asdict(), ascii_only=True) + "\n")
        else:
            kind = "damage" if finding.is_damage else "note"
            echo(printable(f"{kind}: session {finding.session_id}: {finding.told}"))
    if not as_json:
        echo(f"{damaged or 'no'} damage found")
    raise Exit(EXIT_DAMAGED if damaged else 0)


def export(session_id: str) -> None:
    """Print a session with all that was said in it, one JSON object a line: it is content, so mind who reads it."""
    from gateway_svc.conversations.files import session_file, transcript
    from gateway_svc.conversations.files.places import CONVERSATION, Places
    from gateway_svc.errors import GatewayError

    try:
        path = Places(_files()).find(session_id)
        state, _ = session_file.read(path, prompt=True)
    except (GatewayError, OSError) as error:
        raise Failed(str(error), EXIT_DAMAGED, error) from None
    sys.stdout.write(json_text({"session": state.to_json()}, ascii_only=True) + "\n")
    try:
        fd = os.open(path.with_suffix(CONVERSATION), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # nothing was said yet
        return
    try:
        for line in transcript.lines(fd):
            sys.stdout.write(json_text(line, ascii_only=True) + "\n")
    finally:
        os.close(fd)


def _files() -> Path:
    if os.environ.get("GATEWAY_SESSIONS"):
        raise Failed(
            "GATEWAY_SESSIONS: the sessions are in a database, and this command reads files: `gateway-svc transcript` "
            "asks a running gateway for what was said",
            EXIT_DAMAGED,
        )
    return load_settings(StateSettings).state_dir / "sessions"
