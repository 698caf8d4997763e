"""The audit service, whose checkpoints begin with 160 kB in the WAL instead of 40 MB, so that a round makes many.

FAULTS_CLOCK_DAYS: how many days its clock is ahead; less than 0 where it is behind.
"""

import os
import time

from audit_svc.__main__ import main
from audit_svc.sqlite.write import checkpoints

if __name__ == "__main__":
    checkpoints.BEGIN_PAGES = 20
    right, ahead = time.time_ns, int(os.environ.get("FAULTS_CLOCK_DAYS", "0")) * 86_400 * 10**9
    time.time_ns = lambda: right() + ahead
    main()
