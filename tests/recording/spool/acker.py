"""A program that records and acknowledges rows until it is killed, and keeps what is acknowledged."""

import sys
import time
from pathlib import Path

from tests.recording.samples import open_spool, tool_call

ROWS_AT_ONCE = 200


def main() -> None:
    """Arguments: the state directory, and the first row's number. It says the last number that is acknowledged."""
    spool = open_spool(Path(sys.argv[1]), max_bytes=2**20, sync_interval_ms=1, keep_acked_bytes=2**30)
    number = int(sys.argv[2])
    while True:
        for _ in range(ROWS_AT_ONCE):
            while not spool.append(tool_call(number)):  # it trims later than it acknowledges
                time.sleep(0.001)
            number += 1
        while (batch := spool.read(ROWS_AT_ONCE, 2**20)) is not None:
            if batch.payloads:
                spool.ack(batch)
        sys.stdout.buffer.write(b"%d\n" % number)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
