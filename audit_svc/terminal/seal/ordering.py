"""What a command asks of the process that seals: it alone writes the log, and holds the key."""

import getpass
import json
import time
from contextlib import closing
from typing import Literal

from audit_svc.seal.errors import SealError
from audit_svc.seal.folder import ORDER, newest_checkpoint, own_verifier
from audit_svc.seal.log import Log

_SECONDS = 60.0


def ask_sealer(log: Log, act: Literal["restore", "rotate", "retire"], reason: str) -> str:
    """Has the running sealer do something, and returns the entry of the log that says so.

    Raises:
        SealError: it does not.
    """
    before = _last_entry(log)
    log.write({ORDER: json.dumps({"act": act, "reason": reason, "by": getpass.getuser()}).encode()})
    deadline = time.monotonic() + _SECONDS
    while log.read(ORDER) is not None:
        if time.monotonic() > deadline:
            log.remove(ORDER)
            raise SealError("the process that seals does not answer: look at the service's log (seal.trouble)")
        time.sleep(0.05)
    index, said = _last_entry(log)
    if index <= before[0]:
        raise SealError("the process that seals refused it: the service's log says why (seal.trouble)")
    return said


def _last_entry(log: Log) -> tuple[int, str]:
    checkpoint, _ = newest_checkpoint(log, own_verifier(log))
    with closing(log.index()) as index:
        found = index.entries(checkpoint.size, 1)
    return found[-1] if found else (-1, "")
