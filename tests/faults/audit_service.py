"""The audit service, whose checkpoints begin with 160 kB in the WAL instead of 40 MB, so that a round makes many."""

from audit_svc.__main__ import main
from audit_svc.sqlite.write import checkpoints

if __name__ == "__main__":
    checkpoints.BEGIN_PAGES = 20
    main()
