"""Charts as SVG that is drawn here: without a script they are there at once, in print too, and need no inline style."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """What one bar stands for: a part in the usual colour, and one above it in the colour of failures."""

    label: str
    value: float
    bad: float = 0
    told: str = ""
    """The value in words."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart that is 100 high, in its units; y is counted from the top."""

    point: Point
    height: float
    bad_height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars side by side, each one unit wide."""

    title: str
    bars: list[Bar]
    top: float
    """What the highest bar stands for."""
    top_told: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be drawn."""
        return not self.top


def chart(title: str, points: Sequence[Point]) -> Chart:
    """A chart of points, the highest of which fills it. What there is of can be seen, however little."""
    highest = max(points, key=lambda point: point.value + point.bad, default=Point("", 0))
    top = highest.value + highest.bad
    scale = 100 / top if top else 0

    def seen(value: float) -> float:
        return round(max(value * scale, 1), 2) if value else 0

    return Chart(title, [Bar(point, seen(point.value), seen(point.bad)) for point in points], top, highest.told)
