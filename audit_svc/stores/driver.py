"""PostgreSQL's driver, which is an extra."""

from importlib.util import find_spec

from audit_svc.errors import StoreRefused


def refuse_without_driver() -> None:
    """Raises StoreRefused where the driver is not installed."""
    if find_spec("psycopg") is None:
        raise StoreRefused("a ledger in PostgreSQL needs the extra: pip install 'onrecord[postgres]'")
