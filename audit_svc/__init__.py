"""audit_svc owns the ledger: the SQLite database, its migrations, what is recorded and what is asked."""

import service_kit as service_kit  # ahead of gRPC, whose log it turns off
