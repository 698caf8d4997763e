"""The audit service for clients that may have no turn for a while: its prunes take long, and its streams end slowly."""

from audit_svc import servicer
from audit_svc.__main__ import main
from audit_svc.sql.care import prune

LAST_ANSWERS_SECONDS = 2.0
"""Four times what it is: a client that has not read its last answers when its stream ends has lost them."""

if __name__ == "__main__":
    prune.BATCH_ROWS = 20
    servicer._LAST_ANSWERS_SECONDS = LAST_ANSWERS_SECONDS
    main()
