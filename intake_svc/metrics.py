"""The door's metrics. Labels come from fixed lists: no client can add to them."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from intake_svc.dialects import Reading


class DoorMetrics:
    """Counts what came, and what became of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._http = Counter(
            "onrecord_intake_http_requests",
            "Answers over HTTP, by signal and status.",
            ["signal", "code"],
            registry=registry,
        )
        self._items = Counter(
            "onrecord_intake_items",
            "Spans, log records and data points by what became of them.",
            ["signal", "became"],
            registry=registry,
        )
        self._registry = registry

    def count(self, signal: str, reading: Reading, left_out: int = 0) -> None:
        """An export was answered; so many rows of it were left out, since another signal tells of their session."""
        counts = {
            "tool_call": len(reading.calls),
            "model_request": len(reading.costs),
            "ignored": reading.ignored - left_out,
            "left_out": left_out,
            "not_understood": len(reading.not_understood),
        }
        for became, number in counts.items():
            self._items.labels(signal, became).inc(number)

    def count_http(self, signal: str, code: int) -> None:
        """A request over HTTP was answered."""
        self._http.labels(signal, str(code)).inc()

    def count_hooks(self, became: str, number: int = 1) -> None:
        """Events of hooks, or rows of telemetry that hooks had told, became something."""
        self._items.labels("hooks", became).inc(number)

    def add_open_calls(self, waiting: Callable[[], int]) -> None:
        """A gauge of the calls of hooks that are not in the spool yet, read at each scrape."""
        Gauge(
            "onrecord_intake_hook_calls", "Calls told by hooks that are not in the spool yet.", registry=self._registry
        ).set_function(waiting)

    def add_waiting(self, waiting: Callable[[], int]) -> None:
        """A gauge of the bytes of requests that are not answered, read at each scrape."""
        Gauge(
            "onrecord_intake_waiting_bytes", "Of requests that are not answered yet.", registry=self._registry
        ).set_function(waiting)
