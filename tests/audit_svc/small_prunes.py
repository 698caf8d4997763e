"""The audit service, which prunes twenty rows at a time, so that a client with few turns can kill it in the middle."""

from audit_svc.__main__ import main
from audit_svc.store import prune

if __name__ == "__main__":
    prune.BATCH_ROWS = 20
    main()
