"""What a session is, as homes keep it: a record with all but the prompt, and one with that, which listings do not read.

The first says how many records the conversation has, and which prompt belongs to it, so that neither an older prompt
nor a conversation that was cut passes for the session's.
"""

import hashlib
import json
from typing import Any

from gateway_svc.conversations.encryption import Cipher, NotGenuine, is_encrypted
from gateway_svc.conversations.messages import encode
from gateway_svc.conversations.records import PROMPT, STATE
from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Damaged


def encode_state(state: SessionState, records: int, cipher: Cipher) -> bytes:
    """The session without its prompt, whose conversation has so many records."""
    about = {**state.to_json(), "records": records}
    if prompt := about["settings"].pop("system_prompt", ""):
        about["prompt_digest"] = _digest(prompt)
    return cipher.encrypt(STATE, 0, encode(about))


def encode_prompt(state: SessionState, cipher: Cipher) -> bytes:
    """The session's prompt; empty if it has none."""
    prompt = state.settings.system_prompt
    return cipher.encrypt(PROMPT, 0, encode({"system_prompt": prompt})) if prompt else b""


def decode_state(session_id: str, about: bytes, prompt: bytes | None, cipher: Cipher) -> tuple[SessionState, int]:
    """A session, and how many records its conversation had; prompt: empty if it has none, None if it is not wanted.

    From then on the cipher takes records in clear only where this one is.

    Raises:
        KeyMissing: the key that it is encrypted by is not there.
        Damaged: it cannot be read.
    """
    cipher.takes_clear = not is_encrypted(about)
    try:
        value = json.loads(cipher.decrypt(STATE, 0, about))
        records, digest = int(value.pop("records", 0)), value.pop("prompt_digest", "")
        if prompt is not None:
            value["settings"] |= _prompt(prompt, digest, cipher)
        return SessionState.from_json(value), records
    except NotGenuine as error:
        raise Damaged(f"session {session_id} {error}", "session", session_id) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"session {session_id} cannot be read by this version ({type(error).__name__})"
        raise Damaged(told, "session", session_id) from None


def _prompt(stored: bytes, digest: str, cipher: Cipher) -> dict[str, Any]:
    found = json.loads(cipher.decrypt(PROMPT, 0, stored)) if stored else {}
    of_found = _digest(found["system_prompt"]) if found else ""
    if of_found != digest and not cipher.takes_clear:
        raise NotGenuine("has another prompt than it was saved with")
    return dict(found)


def _digest(prompt: str) -> str:
    return hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=16).hexdigest()
