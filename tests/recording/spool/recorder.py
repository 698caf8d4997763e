"""A process that records until it is killed: `python recorder.py STATE_DIR SYNC FIRST`.

It writes each row's number to stdout after record() has returned, so that what it promised is known when it is dead.
"""

import os
import sys
from pathlib import Path

from tests.recording.samples import intent, open_spool, tool_call


def main() -> None:
    state_dir, sync, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    spool = open_spool(state_dir, sync=sync, sync_interval_ms=5)
    number = first
    while True:
        spool.append_intent(intent(number))
        os.write(1, b"i%d\n" % number)
        spool.append(tool_call(number))
        os.write(1, b"o%d\n" % number)
        number += 1


if __name__ == "__main__":
    main()
