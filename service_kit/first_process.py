"""What the first process of a container owes its kernel: to take signals, and to bury what others left behind.

To a process with the number 1 no signal comes that it does not handle, and every process whose parent has died becomes
its child: unless it waits for them, each command of an agent leaves an entry, until no process can be made any more.
"""

import ctypes
import os
import signal
from typing import NoReturn

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_DUMPABLE = 4


def leave_first_process() -> None:
    """Goes on in a child where this is the first process of a container; elsewhere it does nothing.

    To be called before there is any thread. The first process passes signals on, and ends as its child does.
    """
    if os.getpid() != 1:
        return
    # Held back until each of the two has its own effect for them, so that none is lost in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child:
        _be_first(child)
    os.setsid()  # or a terminal's ^C would come twice: from it, and passed on
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)


def _be_first(child: int) -> NoReturn:
    # Its environment holds the service's keys: processes of the same user, such as commands of agents, cannot read it.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
