"""The program of each worker, `WANTED=… python -I -S main.py JOB PACKAGES GATEWAY`: takes its limits, and does its job.

It ends with the gateway, whatever it is doing, and its memory and time are limited here.
"""

import ctypes
import json
import os
import resource
import signal
import sys

MAX_MEMORY_BYTES = {"search": 1024**3, "page": 512 * 1024**2}
MAX_CPU_SECONDS = 30
NICENESS = 5
PR_SET_PDEATHSIG = 1
ORPHANED = 9


def limit(job: str, gateway: int) -> None:
    """Limits this process's resources, and ties its life to that of the gateway, by its process id.

    For the kernel the parent is the *thread* that started us; the gateway starts workers from its main thread.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != gateway:  # it ended before the line above
        sys.exit(ORPHANED)
    for kind, most in (
        (resource.RLIMIT_DATA, MAX_MEMORY_BYTES[job]),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    os.nice(NICENESS)


def main(job: str, packages: str, gateway: str) -> int:
    """Runs the job; its result goes to stdout, its exit code says how it ended."""
    limit(job, int(gateway))
    # After the standard library, so that no package can replace one of its modules.
    sys.path += [os.path.dirname(os.path.abspath(__file__)), *([packages] if packages else [])]  # noqa: PTH100, PTH120 - pathlib is slow to load
    module = __import__(job)
    return int(module.main(json.loads(os.environ["WANTED"])))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
