"""Line charts as SVG: light, with axes, units, and a name at each line instead of a legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import log

WIDTH, HEIGHT = 820, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 78, 58
INK, FAINT, GREY, BAND = "#1f2937", "#e5e7eb", "#6b7280", "#fdecd8"
BLUE, AMBER, SLATE = "#1d4ed8", "#c2570c", "#6b7280"
"""Told apart by lightness too."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis. ticks: the values that are written, with their text."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where it stands, from 0 to 1; what lies outside stands at the end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return log(value / self.low) / log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """One curve. at: where its name is written, in the units of the axes; anchor: which end of the name stands there."""

    name: str
    colour: str
    points: Sequence[Point]
    at: Point
    anchor: str = "start"


@dataclass(frozen=True)
class Band:
    """A stretch of the horizontal axis in which something else holds."""

    name: str
    begins: float
    ends: float


@dataclass(frozen=True)
class Chart:
    """A picture of some curves."""

    title: str
    subtitle: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    band: Band | None = None

    def svg(self) -> str:
        """The text of the file."""
        return "\n".join([*self._head(), *self._axes(), *self._curves(), "</svg>", ""])

    def _x(self, value: float) -> float:
        return LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM)

    def _head(self) -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" fill="{INK}" role="img">'
        )
        yield f"<title>{escape(self.title)}</title>"
        yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        yield _text(LEFT, 28, self.title, font_size=18, font_weight=600)
        yield _text(LEFT, 48, self.subtitle, fill=GREY)

    def _axes(self) -> Iterator[str]:
        floor, ceiling = HEIGHT - BOTTOM, TOP
        if self.band is not None:
            left, right = self._x(self.band.begins), self._x(self.band.ends)
            yield f'<rect x="{left:.1f}" y="{ceiling}" width="{right - left:.1f}" height="{floor - ceiling}" fill="{BAND}"/>'
            yield _text((left + right) / 2, ceiling - 6, self.band.name, text_anchor="middle", fill=AMBER)
        for value, words in self.y.ticks:
            yield _line(LEFT, self._y(value), WIDTH - RIGHT, self._y(value), FAINT)
            yield _text(LEFT - 8, self._y(value) + 4, words, text_anchor="end")
        for value, words in self.x.ticks:
            yield _line(self._x(value), floor, self._x(value), floor + 5, GREY)
            yield _text(self._x(value), floor + 20, words, text_anchor="middle")
        yield _line(LEFT, floor, WIDTH - RIGHT, floor, GREY)
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, self.x.label, text_anchor="middle", fill=GREY)
        yield _text(LEFT, ceiling - 6, self.y.label, fill=GREY)

    def _curves(self) -> Iterator[str]:
        for line in self.lines:
            points = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in line.points)
            yield (
                f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2" '
                'stroke-linejoin="round"/>'
            )
        for line in self.lines:
            x, y = self._x(line.at[0]), self._y(line.at[1])
            # White around the letters keeps them readable where they cross a curve.
            looks = {"fill": line.colour, "font_weight": 600, "text_anchor": line.anchor}
            yield _text(x, y, line.name, **looks, stroke="white", stroke_width=4, paint_order="stroke")


def whole(low: int, high: int, step: int, unit: str = "") -> list[tuple[float, str]]:
    """Ticks at whole numbers."""
    return [(value, f"{value}{unit}") for value in range(low, high + 1, step)]


def thin(points: Sequence[Point], most: int = 400) -> list[Point]:
    """No more points than can be seen, the first and the last among them."""
    step = max(len(points) // most, 1)
    return [*points[::step], points[-1]]


def _text(x: float, y: float, words: str, **style: object) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{_looks(style)}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _looks(style: dict[str, object]) -> str:
    return "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
