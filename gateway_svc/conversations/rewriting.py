"""The commands `sessions encrypt` and `sessions decrypt`: all sessions of a home, one after the other, written anew."""

import asyncio
import sys
from contextlib import redirect_stdout
from typing import NamedTuple

from gateway_svc.conversations.commands import EXIT_SETTINGS, of_session
from gateway_svc.conversations.encryption import SETTING
from gateway_svc.conversations.home import open_home, read_session_keys
from gateway_svc.conversations.protocol import Conversations
from gateway_svc.errors import Busy, GatewayError, NotFound
from gateway_svc.settings import SessionsSettings
from service_kit.printable import printable
from service_kit.settings import check_disk, load_settings
from service_kit.terminal.command import Exit, echo
from service_kit.terminal.failures import Failed
from service_kit.terminal.printing import Json, print_fields

EXIT_LEFT = 1
"""Some sessions are not what they are to be."""


class Left(NamedTuple):
    """A session that stays as it is."""

    session_id: str
    why: str


def encrypt(as_json: Json = False) -> None:
    """Encrypt all sessions by the first key of GATEWAY_SESSIONS_KEY_FILE, those of older keys too."""
    _rewrite_all(encrypts=True, as_json=as_json)


def decrypt(as_json: Json = False) -> None:
    """Put all sessions in clear, so that gateways can do without GATEWAY_SESSIONS_KEY_FILE. End them first."""
    _rewrite_all(encrypts=False, as_json=as_json)


def _rewrite_all(*, encrypts: bool, as_json: bool) -> None:
    settings = load_settings(SessionsSettings)
    check_disk(settings)
    if settings.sessions_key_file is None:
        raise Failed(f"{SETTING}: is not set: it names the keys", EXIT_SETTINGS)
    url = settings.sessions.get_secret_value() if settings.sessions else None
    try:
        with redirect_stdout(sys.stderr):  # for what is logged meanwhile
            keys = read_session_keys(settings.sessions_key_file, encrypts=encrypts)
            home = open_home(settings.state_dir, url, keys)
            done, left = asyncio.run(rewrite_all(home))
    except (GatewayError, OSError) as error:
        raise Failed(str(error), EXIT_SETTINGS, error) from None
    if as_json:
        left_out = [session._asdict() for session in left]
        print_fields({"sessions": done, "encrypted": encrypts, "key_id": keys.first or "", "left": left_out})
        raise Exit(EXIT_LEFT if left else 0)
    for session in left:
        sys.stderr.write(printable(of_session(session.session_id, session.why)) + "\n")
    what = f"encrypted by the key {keys.first}" if encrypts else "in clear"
    echo(f"{done} {'session is' if done == 1 else 'sessions are'} {what}")
    if left:
        echo(f"{len(left)} could not be written anew: run it again when that is mended; keep all keys until then")
        raise Exit(EXIT_LEFT)


async def rewrite_all(home: Conversations) -> tuple[int, list[Left]]:
    """Writes all sessions anew, and returns how many, and those that stay as they are.

    Raises:
        StoreUnavailable: the home cannot be used now.
    """
    done, left = 0, list[Left]()
    try:
        async for session_id in home.unused_since(sys.maxsize):
            try:
                await home.rewrite(session_id)
                done += 1
            except NotFound:  # removed meanwhile
                continue
            except Busy:
                left.append(Left(session_id, "it is in use"))
            except GatewayError as error:
                left.append(Left(session_id, str(error)))
        if not left:
            await home.all_rewritten()
    finally:
        await home.aclose()
    return done, left
