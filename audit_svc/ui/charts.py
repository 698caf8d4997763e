"""Figures as SVG without scripts or external resources."""

from dataclasses import dataclass
from typing import Any, Literal

import pygal
from pygal.style import CleanStyle

from audit_svc.ui.figures import Event, Figures

Kind = Literal["stacked", "side by side"]

_ROW = 18
_NAMES = 260
_BARS = 660


def svg(figures: Figures, kind: Kind) -> str:
    """A bar chart."""
    make = pygal.StackedBar if kind == "stacked" else pygal.Bar
    chart: Any = make(
        js=[],
        title=figures.title,
        style=CleanStyle,
        height=360,
        width=960,
        x_label_rotation=40 if len(figures.places) > 6 else 0,
        show_minor_x_labels=False,
        x_labels_major_count=12,
        legend_at_bottom=True,
        truncate_legend=24,
        no_data_text="nothing in this time",
        disable_xml_declaration=True,
    )
    chart.x_labels = figures.places
    for name, values in figures.series.items():
        chart.add(name, values)
    return str(chart.render(is_unicode=True))


@dataclass(frozen=True, slots=True)
class Bar:
    """One entry of a timeline as it is drawn, in units of the chart."""

    entry: Event
    x: float
    y: int
    width: float


@dataclass(frozen=True, slots=True)
class TimelineChart:
    """A timeline as it is drawn."""

    bars: list[Bar]
    width: int
    height: int
    total_ms: int


def timeline_chart(entries: list[Event]) -> TimelineChart:
    """Places a session's entries below each other, each as wide as it took."""
    total_ms = max((entry.begins_ms + entry.duration_ms for entry in entries), default=0)
    scale = _BARS / max(total_ms, 1)
    bars = [
        Bar(entry, _NAMES + entry.begins_ms * scale, number * _ROW, max(entry.duration_ms * scale, 2))
        for number, entry in enumerate(entries)
    ]
    return TimelineChart(bars, _NAMES + _BARS + 100, len(entries) * _ROW, total_ms)
