"""The counters of a record, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from recording.record import Record


class RecordCollector(Collector):
    """The counters of recording, read at each scrape: recording and sending rows pay nothing for them."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics now (prometheus_client's Collector)."""
        spool, counters, letters = self._record.spool, self._record.counters, self._record.dead_letters
        gauges = {
            "spool_records": ("Records that are not acked, intents included.", spool.depth),
            "spool_bytes": ("What the spool takes on disk.", spool.spooled_bytes),
            "spool_kept_bytes": ("What acknowledged segments that are kept take on disk.", spool.kept_bytes),
            "ledger_doubted": (
                "1 while the ledger is not what it was, and nobody has accepted that.",
                float(self._record.is_doubted()),
            ),
            "witnessed_leaves": (
                "Leaves of the newest checkpoint of the ledger's log that was seen.",
                self._record.witnessed_leaves,
            ),
            "spool_oldest_row_seconds": ("The age of the oldest row that is not acked.", spool.oldest_age_seconds()),
            "spool_adopted": ("Spools of other processes that are being sent.", self._record.adopted),
            "dead_letters": ("Rows that the ledger refused and nobody has decided on.", letters.count()),
            "dead_letter_bytes": ("What the dead letters take on disk.", letters.size_bytes()),
            "spool_sync_running_seconds": ("How long the running sync has taken so far.", spool.sync_seconds()),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"onrecord_{name}", text, value=value)
        counts = {
            "accepted_rows": ("Rows accepted for recording.", counters.accepted),
            "dropped_rows": ("Rows that could not be recorded; gap rows say how many.", counters.dropped),
            "acked_rows": ("Rows that the audit service has acknowledged or rejected.", counters.acked),
            "stored_rows": ("Acked rows that were new in the ledger.", counters.stored),
            "duplicate_rows": ("Acked rows that were in the ledger already.", counters.duplicates),
            "rejected_rows": ("Rows that the ledger rejected for good: dead letters.", counters.rejected),
            "resent_rows": ("Rows resent because no ack came.", counters.resent),
            "interrupted_calls": ("Tool calls found open when a spool was recovered.", counters.interrupted),
            "quarantined_pieces": ("Damaged pieces of the spool that were set aside.", counters.quarantined),
            "missing_records": ("Record numbers that a spool should hold and does not.", counters.missing),
            "lost_rows": ("Accepted rows that were lost with their files before they were sent.", counters.lost),
            "spools_moved": (
                "Times that a spool moved to another folder because its own was taken away.",
                counters.moved,
            ),
            "spool_sync_failures": ("Syncs of the spool that failed.", counters.sync_failures),
            "sender_reconnects": (
                "Connections to the audit service that ended or failed.",
                counters.reconnects,
            ),
            "ledger_doubts": ("Times that the ledger was found not to be what it was.", counters.doubts),
            "returned_rows": (
                "Acknowledged rows that the ledger did not have any more, and that were sent again.",
                counters.returned,
            ),
            "spools_adopted": ("Adopted spools of other processes.", counters.adopted),
        }
        for name, (text, value) in counts.items():
            yield CounterMetricFamily(f"onrecord_{name}", text, value=value)
        state = GaugeMetricFamily(
            "onrecord_sender_state", "1 for the sender's current state, 0 for the others.", labels=["state"]
        )
        current = self._record.sender_state
        for name in ("idle", "sending", "failing"):
            state.add_metric([name], float(name == current))
        yield state
