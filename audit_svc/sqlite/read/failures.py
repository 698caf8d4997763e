"""Which errors of the ledger SQLite's become, where something is read."""

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from audit_svc.errors import Damaged, StoreClosed, StoreUnavailable


@contextmanager
def failures_are_errors() -> Iterator[None]:
    """Translates what a query in the body raises.

    Raises:
        Damaged: the file is not what it was.
        StoreClosed: the query was interrupted.
        StoreUnavailable: the file cannot be read now.
    """
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise Damaged(
            f"the database is damaged ({error}): see what `audit-svc check` says, and restore a backup"
        ) from None
    except apsw.InterruptError:
        raise StoreClosed("the ledger is shutting down") from None
    except (apsw.IOError, apsw.BusyError, apsw.CantOpenError, apsw.FullError) as error:
        raise StoreUnavailable(f"the database cannot be read now ({error}): try again, or check its disk") from None
