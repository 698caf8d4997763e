"""The ledger's metrics: updated once for each commit and each query, never for each row."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from onrecord.audit.v1 import audit_pb2
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_COMMIT_ROWS = (1, 5, 10, 50, 100, 250, 500, 1_000, 2_000, 4_000, 8_000, 10_000)
_QUERY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class StoreMetrics:
    """Counts commits and queries (the StoreObserver protocol)."""

    on_failed_commit: Callable[[], object] | None = None
    """Called at each commit that failed, by the writer's thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._commit_seconds = Histogram(
            "onrecord_ledger_commit_seconds",
            "How long a commit took, from its first insert to the synced end.",
            registry=registry,
            buckets=_COMMIT_SECONDS,
        )
        self._commit_rows = Histogram(
            "onrecord_ledger_commit_rows", "Rows of a commit.", registry=registry, buckets=_COMMIT_ROWS
        )
        self._stored = Counter("onrecord_ledger_stored_rows", "Rows that were new.", registry=registry)
        self._duplicates = Counter("onrecord_ledger_duplicate_rows", "Rows that were there already.", registry=registry)
        self._rejected = Counter("onrecord_ledger_rejected_rows", "Rows refused for good.", registry=registry)
        self._failed = Counter("onrecord_ledger_failed_commits", "Commits that failed.", registry=registry)
        self._suspect = Counter(
            "onrecord_ledger_clock_suspect_rows",
            "Rows whose time the ledger's clock, or what it was pruned to, contradicts.",
            registry=registry,
        )
        self._query_seconds = Histogram(
            "onrecord_ledger_query_seconds",
            "How long a query took in the database.",
            registry=registry,
            buckets=_QUERY_SECONDS,
        )
        self._query_wait_seconds = Histogram(
            "onrecord_ledger_query_wait_seconds",
            "How long a query waited before it began, since the writer was busy.",
            registry=registry,
            buckets=_QUERY_SECONDS,
        )

    def committed(self, responses: Sequence[audit_pb2.RecordResponse], seconds: float) -> None:
        """Counts the rows of a commit, and its time."""
        stored = sum(response.stored for response in responses)
        duplicates = sum(response.duplicates for response in responses)
        rejected = sum(len(response.rejections) for response in responses)
        self._commit_seconds.observe(seconds)
        self._commit_rows.observe(stored + duplicates + rejected)
        self._stored.inc(stored)
        self._duplicates.inc(duplicates)
        self._rejected.inc(rejected)

    def commit_failed(self) -> None:
        """Counts a commit that failed."""
        self._failed.inc()
        if self.on_failed_commit:
            self.on_failed_commit()

    def suspected(self, rows: int) -> None:
        """Counts rows that were marked clock_suspect."""
        self._suspect.inc(rows)

    def queried(self, seconds: float) -> None:
        """Notes how long a query took."""
        self._query_seconds.observe(seconds)

    def throttled(self, seconds: float) -> None:
        """Notes how long a query waited before it began."""
        self._query_wait_seconds.observe(seconds)


class Gauged(Protocol):
    """What gauges are read from."""

    @property
    def kind(self) -> str:
        """Which store it is."""
        ...

    def writes(self) -> bool:
        """Whether this service is the one that writes."""
        ...

    def queued_rows(self) -> int:
        """Rows that wait for the disk."""
        ...

    def clock_jump_ms(self) -> int:
        """How far the clock is ahead of what it can be."""
        ...


class StoreCollector(Collector):
    """Gauges that are read when they are collected."""

    def __init__(self, store: Gauged, database: Path | None, unindexed_rows: Callable[[], int] | None = None) -> None:
        """database: its file, if it is one. unindexed_rows: where there is an index of texts that comes later."""
        self._store = store
        self._database = database
        self._unindexed_rows = unindexed_rows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values of this moment."""
        writer = GaugeMetricFamily(
            "onrecord_ledger_writer", "1 on the replica that writes, by the kind of its store.", labels=["store"]
        )
        writer.add_metric([self._store.kind], self._store.writes())
        yield writer
        yield GaugeMetricFamily(
            "onrecord_ledger_queued_rows", "Rows that wait for the disk.", value=self._store.queued_rows()
        )
        yield GaugeMetricFamily(
            "onrecord_ledger_clock_jump_seconds",
            "How far the clock is ahead of what it can be: nothing is pruned until it is confirmed.",
            value=self._store.clock_jump_ms() / 1000,
        )
        if self._unindexed_rows is not None:
            yield GaugeMetricFamily(
                "onrecord_ledger_unindexed_rows",
                "Tool calls that the index of texts has not yet.",
                value=self._unindexed_rows(),
            )
        if self._database is not None:
            yield from _sizes(self._database)


def _sizes(database: Path) -> Iterator[GaugeMetricFamily]:
    for name, suffix, text in (("database", "", "The database"), ("wal", "-wal", "Its write-ahead log")):
        path = database.with_name(database.name + suffix)
        size = path.stat().st_size if path.exists() else 0
        yield GaugeMetricFamily(f"onrecord_ledger_{name}_bytes", f"{text}, on disk.", value=size)
