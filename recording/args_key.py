"""The key of the digests of arguments: one of the producer's own, in its state directory, or one that producers share.

Under one key equal arguments have equal digests, and without it nothing can be guessed from one. A key of its own is
followed by another after 90 days, a shared one by whoever writes its file; digests under two keys cannot be compared,
which their key ids say.
"""

import json
import os
import secrets
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recording import compact_json
from recording.compact_json import NOT_READ, TOO_MANY, has_too_many_values
from recording.key_file import read_keys
from recording.log import get_logger
from recording.sha256 import Hmac

FILE = "args_key.json"
ROTATION_SECONDS = 90 * 86_400

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ArgsKey:
    """A key of digests."""

    id: str
    key: bytes = field(repr=False)
    _hmac: Hmac = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hmac", Hmac(self.key))

    def digest(self, arguments: str, value: Any = NOT_READ) -> bytes:
        """HMAC-SHA-256 of arguments as a model wrote them, 32 bytes.

        Of JSON it is that of the canonical form: sorted keys, no spaces. Anything else is taken as it is, JSON of more
        than compact_json.MAX_VALUES values too. value: what compact_json.read() gave for them.
        """
        if value is NOT_READ and has_too_many_values(arguments):
            value = TOO_MANY
        try:
            text = arguments if value is TOO_MANY else _canonical(json.loads(arguments) if value is NOT_READ else value)
        except (ValueError, RecursionError):
            text = arguments
        return self._hmac.digest(text.encode("utf-8", "surrogatepass"))


_canonical = compact_json.encoder(sort_keys=True)


def open_args_key(state_dir: Path, shared: Path | None = None) -> ArgsKey:
    """The first key of the file `shared`, see recording.key_file, else the one of a state directory.

    That is made where there is none, where it is old, and where its file is damaged.

    Raises:
        WrongFile: `shared` cannot be used.
        OSError: the file in the state directory cannot be read or written.
    """
    if shared is not None:
        first = read_keys(shared)[0]
        return ArgsKey(first.id, first.key)
    path = state_dir / FILE
    try:
        kept = json.loads(path.read_bytes())
        made_at, key = float(kept["made_at"]), ArgsKey(str(kept["id"]), bytes.fromhex(kept["key"]))
        if key.id and len(key.key) == 32 and time.time() - made_at < ROTATION_SECONDS:
            return key
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError):
        log.warning("args_key.damaged", path=str(path), hint="another key is used from now on")
    key = ArgsKey(secrets.token_hex(8), secrets.token_bytes(32))
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=state_dir, prefix=FILE)  # readable by this user alone
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"id": key.id, "key": key.key.hex(), "made_at": time.time()}, file)
        file.flush()
        os.fsync(file.fileno())
    Path(draft).replace(path)
    return key
