"""Figures: a measurement, its baseline, and its target."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a figure."""

    max_ours: float = math.inf
    """In the figure's unit."""
    max_ratio: float = math.inf
    min_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table."""

    name: str
    unit: str
    ours: float
    baseline: float | None = None
    ratio: float | None = None
    """Our value divided by the baseline's."""
    target: Target | None = None

    def holds(self) -> bool:
        """Whether the target is reached."""
        target = self.target or Target()
        ratio = self.ratio
        return self.ours <= target.max_ours and (ratio is None or target.min_ratio <= ratio <= target.max_ratio)

    def cells(self) -> list[str]:
        """The cells of the line."""
        return [
            self.name,
            f"{_short(self.ours)} {self.unit}",
            "" if self.baseline is None else f"{_short(self.baseline)} {self.unit}",
            "" if self.ratio is None else f"{self.ratio:.2g}" if self.ratio < 0.1 else f"{self.ratio:.2f}",
            self._goal(),
            "" if self.target is None else "yes" if self.holds() else "NO",
        ]

    def _goal(self) -> str:
        target = self.target or Target()
        goals = []
        if target.max_ours < math.inf:
            goals.append(f"at most {_short(target.max_ours)} {self.unit}")
        if target.max_ratio < math.inf:
            goals.append(f"ratio at most {target.max_ratio:g}")
        if target.min_ratio > 0:
            goals.append(f"ratio at least {target.min_ratio:g}")
        return ", ".join(goals)


def compare(name: str, unit: str, ours: Sequence[float], baseline: Sequence[float], target: Target | None) -> Figure:
    """The figure of interleaved rounds: medians, and the median of the ratios per round, which is less noisy."""
    ratios = [one / other for one, other in zip(ours, baseline, strict=True)]
    return Figure(name, unit, statistics.median(ours), statistics.median(baseline), statistics.median(ratios), target)


def compare_at(
    name: str, unit: str, percent: int, ours: Sequence[float], baseline: Sequence[float], target: Target | None
) -> Figure:
    """The figure at a percentile of many samples."""
    one, other = percentile(ours, percent), percentile(baseline, percent)
    return Figure(f"{name}, p{percent}", unit, one, other, one / other, target)


def percentile(samples: Sequence[float], percent: int) -> float:
    """The smallest sample that is at least as large as this percentage of all samples."""
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table in Markdown."""
    lines = [["what", "ours", "baseline", "ratio", "target", "holds"], *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
