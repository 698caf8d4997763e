"""The duties of PID 1 in a container: it handles signals and reaps orphans.

The kernel delivers no signal to PID 1 that it does not handle, and makes PID 1 the parent of every orphan. Unless it
waits for them, each command of an agent leaves a zombie, until no process can be made any more.
"""

import ctypes
import os
import signal
from typing import NoReturn

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_DUMPABLE = 4


def run_below_init() -> None:
    """As PID 1, forks: the child returns from here, the parent becomes its init and exits as it does.

    Elsewhere it does nothing. Call it before there is any thread.
    """
    if os.getpid() != 1:
        return
    # Blocked until both processes have their handlers, so that none is lost in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child:
        _be_init(child)
    os.setsid()  # or a terminal's ^C would come twice: from it, and from init
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _be_init(child: int) -> NoReturn:
    # The environment holds the service's keys: commands of agents, which run as the same user, must not read it.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
