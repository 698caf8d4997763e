"""The metrics of all workers on one page: each sample with the label `worker`."""

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway_svc.workers.worker import page_of

SCRAPE_SECONDS = 3.0

States = Callable[[], Sequence[tuple[int, bool]]]
"""How often each worker was started again, and whether it runs."""


class _SocketConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("worker", timeout=SCRAPE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SCRAPE_SECONDS)
        self.sock.connect(str(self._path))


class Pages(Collector):
    """Reads the workers' pages when its own is asked for. What does not answer is down, and tells nothing else."""

    def __init__(self, folder: Path, states: States) -> None:
        self._folder = folder
        self._states = states

    def describe(self) -> list[Metric]:
        """Nothing ahead of time (prometheus_client's Collector): no worker runs yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families of all workers (prometheus_client's Collector)."""
        states = self._states()
        with ThreadPoolExecutor(len(states)) as threads:
            pages = list(threads.map(_read, (page_of(self._folder, slot) for slot in range(len(states)))))
        up = GaugeMetricFamily("onrecord_worker_up", "Whether a worker answers.", labels=["worker"])
        restarts = CounterMetricFamily(
            "onrecord_worker_restarts", "How often a worker that had died was started again.", labels=["worker"]
        )
        families: dict[str, Metric] = {}
        for slot, ((count, runs), page) in enumerate(zip(states, pages, strict=True)):
            up.add_metric([str(slot)], runs and page is not None)
            restarts.add_metric([str(slot)], count)
            for family in text_string_to_metric_families(page or ""):
                known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.samples.append(sample._replace(labels={**sample.labels, "worker": str(slot)}))
        yield up
        yield restarts
        yield from families.values()


def _read(path: Path) -> str | None:
    connection = _SocketConnection(path)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except (OSError, HTTPException, UnicodeDecodeError):
        return None
    finally:
        connection.close()
