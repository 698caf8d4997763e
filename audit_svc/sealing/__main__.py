"""The sealing process, `python -m audit_svc.sealing FOLDER KEY_FILE ORIGIN SECONDS [SERVICE]`: see process.py.

The ledger's database is in the variable ONRECORD_SEALED_DATABASE: a URL may hold a password, and anybody may read the
words of a command. It ends with its stdin, after a last round, and tells each round on stdout, a JSON object a line.
With SERVICE, the id of the process that started it, it ends with that at once, whatever it is writing.

With `look` in the place of SECONDS it only tells whether the key is one that the log can go on with.
"""

import ctypes
import json
import os
import select
import signal
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from audit_svc.errors import AuditError
from audit_svc.seal.errors import BadLog
from audit_svc.seal.folder import CHECKPOINT
from audit_svc.seal.newest_key import refuse_unfit
from audit_svc.sealing.places import DATABASE, LOOK, SealPlace, open_sealer, place_of
from recording.transparency.errors import TransparencyError

NICENESS = 19
_AUTOGROUP = Path("/proc/self/autogroup")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
AGAIN_SECONDS = 5.0
"""After trouble it lets go of the folder for so long: whoever mends it needs it."""


def main(folder: str, key_file: str, origin: str, seconds: str, service: str = "") -> int:
    """Seals until stdin ends."""
    if service:
        end_with(int(service))
    place = place_of(os.environ[DATABASE], Path(folder) if folder else None)
    if seconds == LOOK:
        return _look(place, Path(key_file))
    ended = begun = False
    while not ended:
        try:
            if begun:
                _refuse_gone(place)
            with open_sealer(place, Path(key_file), origin) as sealer:
                if not begun:  # at the lowest priority a busy machine would keep the log from its beginning for minutes
                    give_way()
                begun = True
                while not ended:
                    sealer.take_order()
                    ended = _has_ended(float(seconds))
                    while sealer.step():
                        _tell(leaves=sealer.size, behind=True)
                    _tell(leaves=sealer.size, behind=False, key=str(sealer.signer.verifier))
        except (AuditError, TransparencyError, OSError) as error:
            _tell(trouble=str(error))
            ended = ended or _has_ended(AGAIN_SECONDS)
    return 0


def _refuse_gone(place: SealPlace) -> None:
    """What was there a moment ago is not begun anew: it comes back, or somebody has removed it for good.

    Raises BadLog, StoreUnavailable.
    """
    with closing(place.open_log()) as log:
        if log.read(CHECKPOINT) is None:
            raise BadLog(f"{log.place(CHECKPOINT)} is gone: put it back, or start the service again for another log")


def _look(place: SealPlace, key_file: Path) -> int:
    try:
        with closing(place.open_log()) as log:
            refuse_unfit(key_file, log)
    except TransparencyError as error:
        _tell(trouble=str(error))
    return 0


def end_with(service: int) -> None:
    """Ties this process to the one that started it, and to nothing else.

    The kernel kills it when that one is gone: at the lowest priority it may not run for long, and would then write
    beside the next service, or where somebody has removed the folder. For the kernel the parent is the *thread* that
    started us; the service does so from its main thread. What is meant for all processes of the service is not meant
    for us, whom it ends itself, after a last round.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != service:  # it ended before the line above
        os._exit(1)


def give_way() -> None:
    """Gives this process the lowest priority.

    It has a session of its own, so on Linux a group of its own too (sched(7), autogroup), beside which niceness alone
    would count for nothing.
    """
    os.nice(NICENESS)
    with suppress(OSError):  # a kernel, or a container, without such groups
        _AUTOGROUP.write_text(str(NICENESS), encoding="ascii")
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # it never interrupts who runs when it wakes


def _has_ended(seconds: float) -> bool:
    """Waits; whether stdin has ended meanwhile."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable)


def _tell(**said: Any) -> None:
    with suppress(BrokenPipeError):  # whoever started it does not listen
        os.write(sys.stdout.fileno(), f"{json.dumps(said)}\n".encode())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
