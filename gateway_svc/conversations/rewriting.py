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
from service_kit.terminal.command import Exit
from service_kit.terminal.failures import Failed
from service_kit.terminal.printing import Json, Printer, print_fields

out = Printer()
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
            done, left, used = asyncio.run(rewrite_all(home, encrypts=encrypts))
    except (GatewayError, OSError) as error:
        raise Failed(str(error), EXIT_SETTINGS, error) from None
    if as_json:
        left_out = [session._asdict() for session in left]
        told = {"sessions": done, "encrypted": encrypts, "key_id": keys.first or "", "left": left_out}
        print_fields({**told, "keys_in_use": used})
        raise Exit(EXIT_LEFT if left or used else 0)
    for session in left:
        sys.stderr.write(printable(of_session(session.session_id, session.why)) + "\n")
    what = f"encrypted by the key {keys.first}" if encrypts else "in clear"
    out.print(f"{done} {'session is' if done == 1 else 'sessions are'} {what}")
    if left:
        out.print(f"{len(left)} could not be written anew: run it again when that is mended; keep all keys until then")
    if used:
        way = "restart them with the new key on top" if encrypts else "end them"
        out.print(f"gateways that run encrypt by {_named(used)}: {way}, then run it again; keep all keys until then")
    if left or used:
        raise Exit(EXIT_LEFT)


async def rewrite_all(home: Conversations, *, encrypts: bool) -> tuple[int, list[Left], list[str]]:
    """Writes all sessions anew, and returns how many, those that stay as they are, and the ids of the other keys that
    running gateways encrypt by.

    Raises:
        Busy: all are to be in clear, and running gateways encrypt.
        StoreUnavailable: the home cannot be used now.
    """
    done, left = 0, list[Left]()
    try:
        used = await home.keys_in_use()
        if used and not encrypts:
            raise Busy(f"gateways that run encrypt by {_named(used)}: end them first, then run it again")
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
        used = await (home.keys_in_use() if left else home.all_rewritten())
    finally:
        await home.aclose()
    return done, left, used


def _named(key_ids: list[str]) -> str:
    return f"the {'key' if len(key_ids) == 1 else 'keys'} {', '.join(key_ids)}"
