"""Commands on the sessions in a state directory, for whoever may read it; beside a running gateway or without."""

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from gateway_svc.settings import SessionsSettings
from service_kit.printable import json_text, printable
from service_kit.settings import check_disk, load_settings
from service_kit.terminal.command import Exit
from service_kit.terminal.failures import Failed
from service_kit.terminal.ids import SessionId, is_whole, too_short, whole_id
from service_kit.terminal.printing import Json, Printer

if TYPE_CHECKING:
    from gateway_svc.conversations.encryption import Keys
    from gateway_svc.conversations.files.places import Places

out = Printer()
EXIT_DAMAGED, EXIT_SETTINGS = 1, 2


def check(as_json: Json = False) -> None:
    """Look through the files of all sessions.

    The exit code is 1 if anything is damaged or missing, 2 when nothing can be said.
    """
    from gateway_svc.conversations.files import check as files_check  # other commands need not load it

    damaged = 0
    root, keys = _files()
    for finding in files_check.check(root, keys):
        damaged += finding.is_damage
        if as_json:
            sys.stdout.write(json_text(finding._asdict(), ascii_only=True) + "\n")
        else:
            kind = "damage" if finding.is_damage else "note"
            out.print(printable(f"{kind}: {of_session(finding.session_id, finding.told)}"))
    if not as_json:
        out.print(f"{damaged or 'no'} damage found")
    raise Exit(EXIT_DAMAGED if damaged else 0)


def export(session: SessionId, as_json: Json = False) -> None:
    """Print a session with all that was said in it, one JSON object a line in any case.

    It is content, so mind who reads it.
    """
    from gateway_svc.conversations.files import session_file, transcript
    from gateway_svc.conversations.files.places import CONVERSATION, Places, owner_of
    from gateway_svc.errors import GatewayError, NotFound

    root, keys = _files()
    try:
        places = Places(root)
        session_id = session if is_whole(session) else whole_id(session, [*_ids(places)], "SESSION")
        path = places.find(session_id)
        cipher = keys.cipher(session_id, owner_of(path))
        state, _ = session_file.read(path, cipher, prompt=True)
    except (GatewayError, OSError) as error:
        part = too_short(session) if isinstance(error, NotFound) else ""
        raise Failed(f"{error}{part}", EXIT_DAMAGED, error) from None
    sys.stdout.write(json_text({"session": state.to_json()}, ascii_only=True) + "\n")
    try:
        fd = os.open(path.with_suffix(CONVERSATION), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # nothing was said yet
        return
    try:
        for line in transcript.lines(fd, cipher):
            sys.stdout.write(json_text(line, ascii_only=True) + "\n")
    except GatewayError as error:
        raise Failed(str(error), EXIT_DAMAGED, error) from None
    finally:
        os.close(fd)


def _ids(places: "Places") -> Iterator[str]:
    """Those of all sessions, the newest first."""
    return (path.stem for path in places.newest_first())


def of_session(session_id: str, told: str) -> str:
    """What is told of a session, which is named once."""
    return told if told.startswith(f"session {session_id}") else f"session {session_id}: {told}"


def _files() -> "tuple[Path, Keys]":
    """The folder of the sessions, and their keys."""
    from gateway_svc.conversations.files.noted_keys import noted_keys
    from gateway_svc.conversations.home import read_session_keys
    from gateway_svc.errors import SettingsError

    if os.environ.get("GATEWAY_SESSIONS"):
        raise Failed(
            "GATEWAY_SESSIONS: the sessions are in a database, and this command reads files: `gateway-svc transcript` "
            "asks a running gateway for what was said",
            EXIT_SETTINGS,
        )
    settings = load_settings(SessionsSettings)
    check_disk(settings)
    root = settings.state_dir / "sessions"
    if not root.is_dir():  # of what is not there nothing can be said
        raise Failed(f"GATEWAY_STATE_DIR: {settings.state_dir} has no sessions: name a gateway's folder", EXIT_SETTINGS)
    try:
        with redirect_stdout(sys.stderr):  # for what is logged meanwhile
            keys = read_session_keys(settings.sessions_key_file)
            keys.refuse_others(noted_keys(root))
    except (SettingsError, OSError) as error:
        raise Failed(str(error), EXIT_SETTINGS, error) from None
    return root, keys
