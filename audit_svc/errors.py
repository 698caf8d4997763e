"""The ledger's errors.

AuditError
├── StoreRefused            the database cannot be served as it is: the message says what to do   exit code 1
│   ├── DatabaseInUse       another process has the database open                                 exit code 1
│   ├── DatabaseVanished    a database that was served is missing                                 exit code 2
│   ├── NoFile              there is no such file                                                 exit code 1
│   ├── FileDamaged             the database file is damaged                                      exit code 1
│   ├── WrongSetting        a setting is wrong or missing                                         exit code 2
│   └── MigrationRefused    its schema is not what this version of the code knows                 exit code 1
├── InvalidRequest          the request can never be carried out as it is written    INVALID_ARGUMENT
├── RowVersionTooNew        the batch is of a newer version than this ledger knows   FAILED_PRECONDITION
├── AmbiguousId             the id is of rows that several callers recorded          FAILED_PRECONDITION
├── NotFound                what the request names is not in the ledger              NOT_FOUND
├── AlreadyExists           something else has that name                             ALREADY_EXISTS
├── Held                    a legal hold holds what would be erased                  FAILED_PRECONDITION
├── AlreadyRunning          an operation of this kind is running already, and only one may      ABORTED
├── ClockJumped             the clock shows a time that cannot be believed without being confirmed   FAILED_PRECONDITION
├── Unsupported             this store does not do it: the message says what does   UNIMPLEMENTED
├── QueueFull               more rows wait for the disk than the ledger holds ready  RESOURCE_EXHAUSTED, RetryInfo
├── Overloaded              as many are there as may be: one must end first          RESOURCE_EXHAUSTED, RetryInfo
├── TailBehind              a tail reads too slowly, and has not asked to skip        RESOURCE_EXHAUSTED
├── DiskFull                the disk has no room for a commit                        RESOURCE_EXHAUSTED, RetryInfo
├── Damaged                 a part of the database that was needed cannot be read    DATA_LOSS
└── StoreUnavailable        the database cannot be used now                          UNAVAILABLE
    ├── StoreClosed         the ledger is shutting down                              UNAVAILABLE
    ├── NotWriter           another replica writes: the message says what to do      UNAVAILABLE
    └── FileLost            the database's path names another file now, or none      UNAVAILABLE

audit_svc.services maps them to status codes; no other module knows gRPC.
"""

from collections.abc import Sequence
from pathlib import Path


class AuditError(Exception):
    """The root of the ledger's own errors."""


class StoreRefused(AuditError):
    """The database cannot be served as it is. The message says why and what to do."""


class DatabaseInUse(StoreRefused):
    """Another process has the database open."""


class NoFile(StoreRefused):
    """There is no file at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no file {path}")
        self.path = path


class FileDamaged(StoreRefused):
    """The database file is damaged. The message says what to do."""


class WrongSetting(StoreRefused):
    """A setting is wrong or missing. The message names its variable."""


class DatabaseVanished(StoreRefused):
    """A database that was served is missing. The message says what to do."""


class MigrationRefused(StoreRefused):
    """The schema is not exactly what this version of the code knows. The message says why and what to do."""


class InvalidRequest(AuditError):
    """The request can never be carried out as it is written. `field` is its field that is at fault, if one is."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class RowVersionTooNew(AuditError):
    """A batch has rows of a version that this ledger does not know. Its producer keeps them until the ledger does."""

    def __init__(self, message: str, known: int) -> None:
        super().__init__(message)
        self.metadata = {"row_version": str(known)}


class NotFound(AuditError):
    """What the request names is not in the ledger: its kind, such as session, and its id."""

    def __init__(self, message: str, resource: str, id_: str) -> None:
        super().__init__(message)
        self.resource = resource
        self.id = id_


class AmbiguousId(AuditError):
    """An id is of rows that several callers recorded. The message and `metadata` name them."""

    def __init__(self, message: str, resource: str, id_: str, recorded_by: Sequence[str]) -> None:
        super().__init__(message)
        self.resource = resource
        self.id = id_
        self.metadata = {"recorded_by": ", ".join(repr(name) for name in recorded_by)}


class AlreadyExists(AuditError):
    """Something else has that name: its kind, such as hold, and its name."""

    def __init__(self, message: str, resource: str, id_: str) -> None:
        super().__init__(message)
        self.resource = resource
        self.id = id_


class Held(AuditError):
    """A legal hold holds what would be erased. The message and `metadata` name it."""

    def __init__(self, hold: str) -> None:
        super().__init__(f"the legal hold {hold!r} holds what would be erased: `audit-svc hold list` tells of it")
        self.metadata = {"hold": hold}


class AlreadyRunning(AuditError):
    """An operation of this kind is running already, and only one may."""


class ClockJumped(AuditError):
    """The ledger's clock shows a time that cannot be believed. The message says how to confirm it."""


class Unsupported(AuditError):
    """A store does not do this. The message says what does."""


class QueueFull(AuditError):
    """More rows wait for the disk than the ledger holds ready; trying again later helps."""


class Overloaded(AuditError):
    """As many are there as may be. The message says what is to end first."""


class TailBehind(AuditError):
    """A tail is further behind than its client lets it skip. The message says how to go on, `metadata` from where."""

    def __init__(self, message: str, resume_token: str) -> None:
        super().__init__(message)
        self.metadata = {"resume_token": resume_token}


class DiskFull(AuditError):
    """The disk has no room for a commit; trying again helps once it has."""


class StoreUnavailable(AuditError):
    """The database cannot be used now."""


class Damaged(AuditError):
    """A part of the database that was needed cannot be read. The message says what to do."""


class StoreClosed(StoreUnavailable):
    """The ledger is shutting down. Producers take it for an announced end (recording.delivery.connection)."""


class NotWriter(StoreUnavailable):
    """Another replica of the ledger writes, or none does now; `metadata` has the writer's address where it is known."""

    def __init__(self, message: str, address: str) -> None:
        super().__init__(message)
        self.metadata = {"writer": address} if address else {}


class FileLost(StoreUnavailable):
    """The database's path names another file than the one that is open, or none."""
