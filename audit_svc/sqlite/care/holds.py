"""Legal holds of a ledger that no service has open."""

from pathlib import Path

from onrecord.audit.v1 import administration_pb2

from audit_svc.ledger.holds import Act
from audit_svc.sql.care.holds import perform
from audit_svc.sqlite.open.connection import transaction
from audit_svc.sqlite.open.files import writing


def act_on_file(path: Path, act: Act) -> administration_pb2.Hold:
    """perform() for a ledger that no service has open. Raises as it does, and StoreRefused, DiskFull."""
    with writing(path) as connection, transaction(connection):
        return perform(connection, act)
