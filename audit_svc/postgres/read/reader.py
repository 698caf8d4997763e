"""Connections that only read: each is opened when it is needed, and again when it was lost."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg
import structlog
from psycopg import IsolationLevel

from audit_svc.errors import Damaged, StoreClosed, StoreUnavailable
from audit_svc.ledger.observer import StoreObserver
from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.postgres.open.connection import Connection, connect, translated
from audit_svc.postgres.read.database import PostgresDatabase
from audit_svc.postgres.text.trigrams import INDEX, has_index
from audit_svc.sql import reader

log = structlog.get_logger(__name__)

T = TypeVar("T")

READERS = 4
STATEMENT_SECONDS = 60
"""The longest time of a statement, where the URL's options or the role's settings say no other."""
_LOOK_FOR_CLIENT = "SET client_connection_check_interval = '500ms'"
"""So the server ends a question whose connection was cut, where its system tells it of that."""

_SETTINGS = (
    "SET default_transaction_read_only = on",
    # What is asked for differs in how many rows have it: a plan for any value is a bad one for some.
    "SET plan_cache_mode = force_custom_plan",
    # Compiling takes longer than most answers.
    "SET jit = off",
    # A question has one core: its neighbours and the writer want the others.
    "SET max_parallel_workers_per_gather = 0",
    # The newest rows, which most questions are about, are in memory, or on a disk that does not seek.
    "SET random_page_cost = 1.1",
)
_DAMAGE = {"XX001", "XX002"}


class PostgresReader(reader.Reader):
    """Answers questions from the database at a URL as libpq takes it."""

    def __init__(self, url: str, observer: StoreObserver | None = None, readers: int = READERS) -> None:
        super().__init__([_ReadConnection(url, self.tell_of_texts) for _ in range(readers)], observer)
        self._said: bool | None = None

    def tell_of_texts(self, has_trigrams: bool) -> None:
        """Logs how texts are looked for, at first and when that has changed. From any thread."""
        if self._said is not has_trigrams:
            self._said = has_trigrams
            log.info("store.texts", by="pg_trgm" if has_trigrams else "scans", index=INDEX)


class _ReadConnection:
    """One connection; at most one question at a time."""

    def __init__(self, url: str, on_open: Callable[[bool], None]) -> None:
        """on_open: told whether there is an index of texts, whenever the connection is opened."""
        self._url = url
        self._on_open = on_open
        self._connection: Connection | None = None
        self._has_trigrams = False
        self._is_given_up = False
        self._token = CancelToken()
        """Of the connection, or of the attempt to have one."""

    def run(self, question: Callable[[PostgresDatabase], T]) -> T:
        """What question returns or raises. A connection that was lost before is no failure: it is asked again.

        Raises:
            Damaged: what was asked for cannot be read.
            StoreClosed: the question was interrupted.
            StoreUnavailable: there is no answer now, or it takes longer than a statement may.
        """
        was_open = self._connection is not None
        try:
            return self._ask(question)
        except StoreUnavailable:
            if not was_open or self._connection is not None or self._is_given_up:
                raise
            return self._ask(question)
        finally:
            self._is_given_up = False

    def interrupt(self) -> None:
        """Cuts the connection, or gives up the attempt to have one, at which the server ends the question.

        Not by a request to cancel it: before libpq 17 that stops the whole process until the server answers.
        """
        self._is_given_up = True
        self._token.cancel()
        if connection := self._connection:
            connection.cut()

    def close(self) -> None:
        """Closes it, if it is open."""
        if self._connection:
            self._connection.close()

    def _ask(self, question: Callable[[PostgresDatabase], T]) -> T:
        began = time.monotonic()
        try:
            with translated():
                database = PostgresDatabase(self._opened(), has_trigrams=self._has_trigrams)
                if self._is_given_up:
                    raise StoreClosed("the ledger is shutting down")
                try:
                    return question(database)
                except psycopg.errors.QueryCanceled:
                    raise self._why_cancelled(began) from None
                except psycopg.Error as error:
                    if self._is_given_up:
                        raise StoreClosed("the question was given up") from None
                    if error.sqlstate not in _DAMAGE:
                        raise
                    raise Damaged(
                        "the ledger's database is damaged: see what its log says, and restore a backup"
                    ) from None
        finally:
            if self._connection and self._connection.is_lost:
                self._connection = None

    def _why_cancelled(self, began: float) -> StoreUnavailable:
        seconds = round(time.monotonic() - began)
        return StoreUnavailable(
            f"the ledger's database ended the question after {seconds} s, as its statement_timeout or its "
            "administrator says: ask for a shorter time, or for less"
        )

    def _opened(self) -> Connection:
        if self._connection is None:
            self._token = CancelToken()
            connection = connect(self._url, statement_seconds=STATEMENT_SECONDS, token=self._token)
            try:
                _prepare(connection)
                self._has_trigrams = has_index(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._on_open(self._has_trigrams)
        return self._connection


def _prepare(connection: Connection) -> None:
    raw = connection.raw
    with suppress(psycopg.DatabaseError):  # which other systems, and what else speaks the protocol, do not have
        raw.execute(_LOOK_FOR_CLIENT)
    raw.isolation_level, raw.read_only = IsolationLevel.REPEATABLE_READ, True
    for setting in _SETTINGS:
        raw.execute(setting)
