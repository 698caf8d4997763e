"""The ledger as Datasette's database: read as it is found, live beside a service, and else without a trace."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from datasette.database import Database
from datasette.utils.sqlite import sqlite3

from audit_svc.errors import StoreRefused
from audit_svc.sqlite.open.at_rest import FoundDatabase

T = TypeVar("T")

_ATTEMPTS = 3
"""How often a query is tried on a file that changes under it, as when a service starts."""


class _Source:
    """What is opened for a database as it was found."""

    def __init__(self, path: Path) -> None:
        self.found = FoundDatabase(path)
        self._folder: TemporaryDirectory[str] | None = None
        self.uri = f"{self.found.resolved.as_uri()}?mode=ro"
        if self.found.state == "whole":
            self.uri += "&immutable=1"
        elif self.found.state == "with a WAL":
            # Python's own SQLite cannot be kept from deleting a -wal that it has no use for.
            self._folder = TemporaryDirectory(prefix="onrecord-")
            copy = Path(self._folder.name) / "ledger.db"
            self.found.copy(copy)
            self.uri = f"{copy.as_uri()}?mode=ro&immutable=1"

    def close(self) -> None:
        """Removes what was copied. Connections to it go on."""
        if self._folder:
            self._folder.cleanup()


class Ledger(Database):  # type: ignore[misc] # Datasette has no types
    """A ledger whose queries are not written to stderr when they fail: what somebody searched for may be a secret."""

    def __init__(self, datasette: Any, path: Path) -> None:
        """Raises StoreRefused where the file cannot be read."""
        super().__init__(datasette, path=str(path), is_mutable=True)
        self._lock = threading.Lock()
        self._source = _Source(path)
        self._opened = threading.local()

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await super().execute(*args, **{**options, "log_sql_errors": False})

    async def execute_fn(self, fn: Callable[[Any], T]) -> T:
        """What fn returns of a connection, in a thread. fn is called again where the file was changed meanwhile.

        Raises:
            StoreRefused: it cannot be read, or changes again and again.
        """
        return await asyncio.get_running_loop().run_in_executor(self.ds.executor, self._read, fn)

    def close(self) -> None:
        """Closes the connections, and removes what was copied."""
        super().close()
        self._source.close()

    def _read(self, fn: Callable[[Any], T]) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            source = self._current()
            try:
                with source.found.unchanged():
                    return fn(self._connection(source))
            except StoreRefused:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("not reached")

    def _current(self) -> _Source:
        """The source, found anew if files that were at rest have changed. Connections to those hold no locks."""
        with self._lock:
            try:
                self._source.found.refuse_changed()
            except StoreRefused:
                replaced, self._source = self._source, _Source(Path(self.path))
                replaced.close()
            return self._source

    def _connection(self, source: _Source) -> Any:
        """The connection of the thread that asks."""
        opened: tuple[_Source, Any] | None = getattr(self._opened, "of", None)
        if opened is not None and opened[0] is source:
            return opened[1]
        if opened is not None:
            opened[1].close()
            self._all_file_connections.remove(opened[1])
        connection = sqlite3.connect(source.uri, uri=True, check_same_thread=False)
        self._all_file_connections.append(connection)
        self.ds._prepare_connection(connection, self.name)  # as Datasette does with its own
        self._opened.of = source, connection
        return connection
