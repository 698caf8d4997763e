"""PostgreSQL's driver, which is an extra."""

from importlib.util import find_spec

from audit_svc.errors import StoreRefused
from service_kit.extras import is_missing


def refuse_without_driver() -> None:
    """Raises StoreRefused where the driver is not installed."""
    if find_spec("psycopg") is None:
        raise StoreRefused(f"a ledger in PostgreSQL needs its driver: {is_missing('postgres')}")
