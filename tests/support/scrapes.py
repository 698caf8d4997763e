"""Reads a service's metrics as Prometheus does."""

import re
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from demo.processes import Service

_ADDRESS = re.compile(r'metrics\.listening\W.*?address"?[=:] ?"?([^\s",}]+)|address": "([^"]+)".*"metrics\.listening"')


class Scrape:
    """One answer: the samples, and the text that they were read from."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        return sum(
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def names(self) -> set[str]:
        """Of all samples."""
        return {sample.name for sample in self._samples}

    def labels(self, name: str, label: str) -> set[str]:
        """The values that a label has in the samples of this name."""
        return {sample.labels[label] for sample in self._samples if sample.name == name}


def metrics_address(service: Service) -> str:
    """host:port, as the log tells it."""
    deadline = time.monotonic() + 120
    while not (match := _ADDRESS.search(service.stderr_text())):
        assert time.monotonic() < deadline, service.stderr_text()
        time.sleep(0.01)
    return match[1] or match[2]


def scrape(service: Service) -> Scrape:
    """Asks a service for its metrics."""
    return scrape_address(metrics_address(service))


def scrape_address(address: str) -> Scrape:
    """Asks whoever listens there."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        return Scrape(answer.read().decode())
