"""What is found, and what is wrongly taken for a secret: python -m tests.recording.redact.report."""

import json
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

from recording import redact
from service_kit.terminal.printing import Printer, Table
from tests.recording.redact import samples
from tests.recording.redact.samples import Sample
from tests.support.shown import hand_over

SEEDS = 3


@dataclass
class Findings:
    """What came of both suites, by tool."""

    secrets: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[Sample, str]] = field(default_factory=list)
    ordinary: Counter[str] = field(default_factory=Counter)
    alarms: list[tuple[Sample, str]] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return 1 - len(self.missed) / self.secrets.total()

    @property
    def false_alarms(self) -> float:
        return len(self.alarms) / self.ordinary.total()


def shown(sample: Sample) -> str:
    """What the record shows of a sample."""
    if sample.tool == "error":
        return redact.redact_text(sample.text)
    arguments = json.dumps({samples.ARGUMENT[sample.tool]: sample.text})
    (value,) = json.loads(redact.summarize_args(sample.tool, arguments)).values()
    return str(value)


def findings() -> Findings:
    """Both suites, the secrets with several sets of random characters."""
    found = Findings()
    for sample in (sample for seed in range(SEEDS) for sample in samples.secrets(seed)):
        for secret in sample.secrets:
            found.secrets[sample.tool] += 1
            if samples.pieces_of(secret, shown(sample)):
                found.missed.append((sample, secret))
    for sample in samples.ordinary():
        found.ordinary[sample.tool] += 1
        if "[redacted:" in (text := shown(sample)):
            found.alarms.append((sample, text))
    return found


def cost_us(sample: Sample) -> float:
    """What summarising a call takes, in microseconds."""
    arguments = json.dumps({samples.ARGUMENT[sample.tool]: sample.text})
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(20):
            redact.summarize_args(sample.tool, arguments)
        best = min(best, (time.perf_counter() - start) / 20)
    return best * 1e6


def main() -> None:
    """Prints the table, then each miss and each false alarm."""
    hand_over()
    found, console = findings(), Printer()
    missed = Counter(sample.tool for sample, _ in found.missed)
    alarms = Counter(sample.tool for sample, _ in found.alarms)
    table = Table("tool", "secrets", "missed", "recall", "ordinary", "false alarms")
    for tool in sorted(found.secrets | found.ordinary):
        secrets, ordinary = found.secrets[tool], found.ordinary[tool]
        recall = f"{1 - missed[tool] / secrets:.2%}" if secrets else "-"
        table.add_row(tool, str(secrets), str(missed[tool]), recall, str(ordinary), str(alarms[tool]))
    total = (found.secrets.total(), missed.total(), f"{found.recall:.2%}", found.ordinary.total())
    table.add_row("all", *map(str, total), f"{alarms.total()} ({found.false_alarms:.2%})")
    console.print(table)
    for sample, secret in found.missed:
        console.print(f"missed: {sample.tool} {sample.text} ({secret})")
    for sample, text in found.alarms:
        console.print(f"false alarm: {sample.tool} {text}")
    costs = sorted(cost_us(sample) for sample in samples.ordinary() if sample.tool != "error")
    tenth = statistics.quantiles(costs, n=10)
    console.print(f"An ordinary call: {statistics.median(costs):.0f} µs (median), {tenth[-1]:.0f} µs (nine in ten)")


if __name__ == "__main__":
    main()
