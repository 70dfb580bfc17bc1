"""The one picture: what n layers cost on the wire, beside raw grpcio, in the four places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, isclose

from bench.arms import AGAIN
from bench.families import MODULES
from bench.figures import Figures, Results
from bench.places import COUNTS, MODES, SIDES
from bench.stats import Spread
from bench.targets import FIVE_LAYERS

WIDTH, HEIGHT = 1000, 440
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 112, 66
GAP = 14
LABELS = 60
"""Room at the right of each panel for the figures at the lines' ends."""

LINE_HEIGHT = 14
STEP = 0.05

COLOURS = {"native": "#6b7280", "grpc-interceptor": "#d97706", "interpose": "#1d4ed8"}
"""Told apart by lightness too, so that colour-blind readers and grey printers can follow."""

NAMES = {
    "native": "grpcio's own interceptors",
    "grpc-interceptor": "grpc-interceptor",
    "interpose": "Interpose",
}
INK, FAINT, BAND, TARGET = "#1f2937", "#e5e7eb", "#e8eef6", "#059669"
SIDEWAYS = {"native": -7.0, "grpc-interceptor": 7.0, "interpose": 0.0}
"""Pixels by which a family's points stand beside their n, so that spread bars do not hide each other."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the four coordinate systems; all share the vertical one."""

    path: str
    index: int
    lowest: float
    highest: float

    @property
    def width(self) -> float:
        return (WIDTH - LEFT - RIGHT - GAP * 3) / 4

    @property
    def left(self) -> float:
        return LEFT + self.index * (self.width + GAP)

    @property
    def right(self) -> float:
        return self.left + self.width

    def x(self, count: int) -> float:
        """The three n, evenly spaced; the right edge is left to the labels."""
        return self.left + 26 + COUNTS.index(count) * (self.width - 36 - LABELS) / (len(COUNTS) - 1)

    def y(self, ratio: float) -> float:
        share = (ratio - self.lowest) / (self.highest - self.lowest)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def picture(results: Results) -> str | None:
    """The SVG, or None if nothing was measured on the wire."""
    figures = results.wire
    paths = [f"{mode}/{side}" for mode in MODES for side in SIDES]
    drawn = [each for name, each in figures.items() if name.endswith("/ratio") and "/noop/" in name]
    if not drawn:
        return None
    lowest = STEP * floor(min(each.low for each in drawn) / STEP)
    highest = STEP * ceil(max(each.high for each in drawn) / STEP)
    panels = [Panel(path, index, lowest, highest) for index, path in enumerate(paths)]
    body = [*_head(figures), *(line for panel in panels for line in _panel(panel, figures)), *_foot(results)]
    return "\n".join([_open(), *body, "</svg>", ""])


def _open() -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" fill="{INK}" role="img">\n'
        f"<title>CPU per unary call with 1, 5 and 10 no-op interceptors, as a ratio to raw grpcio</title>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    )


def _text(x: float, y: float, words: str, **style: object) -> str:
    looks = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{looks}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, **style: object) -> str:
    looks = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in style.items())
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{looks}/>'


def _rect(left: float, top: float, right: float, bottom: float) -> str:
    size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
    return f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{BAND}"/>'


def _head(figures: Figures) -> Iterator[str]:
    yield _text(LEFT, 28, "What no-op interceptors cost a unary call", font_size=18, font_weight=600)
    yield _text(LEFT, 48, "CPU time of client and server together, ratio to raw grpcio; interceptors on one side only")
    x = float(LEFT)
    for family, colour in COLOURS.items():
        if any(f"/{family}/" in name for name in figures):
            yield _line(x, 68, x + 22, 68, colour, stroke_width=2)
            yield f'<circle cx="{x + 11:.1f}" cy="68" r="4" fill="{colour}"/>'
            yield _text(x + 28, 72, NAMES[family])
            x += 46 + 6.4 * len(NAMES[family])
    yield _line(x, 68, x + 22, 68, TARGET, stroke_width=2, stroke_dasharray="4 3")
    yield _text(x + 28, 72, "our target for five")
    x += 46 + 6.4 * len("our target for five")
    yield _rect(x, 61, x + 22, 75)
    yield _text(x + 28, 72, "raw against itself (noise)")


def _panel(panel: Panel, figures: Figures) -> Iterator[str]:
    mode, side = panel.path.split("/")
    yield _text(panel.left, TOP - 12, f"{'asyncio' if mode == 'aio' else mode} {side}", font_size=14, font_weight=600)
    if again := figures.get(f"{panel.path}/{AGAIN}/noop/0/ratio"):
        yield _band(panel, again)
    yield from _grid(panel)
    limit = panel.y(FIVE_LAYERS[panel.path])
    yield _line(panel.x(5) - 20, limit, panel.x(5) + 20, limit, TARGET, stroke_width=2, stroke_dasharray="4 3")
    drawn = {family: _points(panel, figures, family) for family in MODULES}
    for family, points in drawn.items():
        yield from _series(panel, family, points)
    yield from _ends(panel, {family: points[-1] for family, points in drawn.items() if points})


def _band(panel: Panel, again: Spread) -> str:
    return _rect(panel.left, panel.y(again.high), panel.right, panel.y(again.low))


def _grid(panel: Panel) -> Iterator[str]:
    for tick in range(round((panel.highest - panel.lowest) / STEP) + 1):
        ratio = panel.lowest + tick * STEP
        y = panel.y(ratio)
        yield _line(panel.left, y, panel.right, y, "#9ca3af" if isclose(ratio, 1) else FAINT)
        if panel.index == 0:
            yield _text(panel.left - 8, y + 4, f"×{ratio:.2f}", text_anchor="end")
    for count in COUNTS:
        yield _text(panel.x(count), HEIGHT - BOTTOM + 18, str(count), text_anchor="middle")


def _points(panel: Panel, figures: Figures, family: str) -> list[Spread]:
    found = (figures.get(f"{panel.path}/{family}/noop/{count}/ratio") for count in COUNTS)
    return [each for each in found if each]


def _series(panel: Panel, family: str, points: Sequence[Spread]) -> Iterator[str]:
    colour = COLOURS[family]
    xs = [panel.x(count) + SIDEWAYS[family] for count in COUNTS]
    for (x1, one), (x2, two) in pairwise(zip(xs, points, strict=False)):
        yield _line(x1, panel.y(one.middle), x2, panel.y(two.middle), colour, stroke_width=2)
    for x, each in zip(xs, points, strict=False):
        yield _line(x, panel.y(each.low), x, panel.y(each.high), colour, stroke_width=1.5, stroke_opacity=0.6)
        yield f'<circle cx="{x:.1f}" cy="{panel.y(each.middle):.1f}" r="4" fill="{colour}"/>'


def _ends(panel: Panel, last: dict[str, Spread]) -> Iterator[str]:
    """The figure at each line's end, pushed up where it would cover the one below."""
    free = float(HEIGHT)
    for family, each in sorted(last.items(), key=lambda item: item[1].middle):
        y = min(panel.y(each.middle) + 4, free)
        free = y - LINE_HEIGHT
        yield _text(panel.right, y, f"×{each.middle:.3f}", text_anchor="end", fill=COLOURS[family], font_weight=600)


def _foot(results: Results) -> Iterator[str]:
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield _text(middle, HEIGHT - 30, "number of interceptors", text_anchor="middle")
    count = next((f.count for name, f in results.wire.items() if name.endswith("/ratio")), 0)
    where = ", ".join(results.about.get(key, "") for key in ("cpu", "kernel", "python"))
    how = f"Medians and quartiles of {count} rounds, everything on one core."
    words = f"{how} {where}, grpcio {results.about.get('grpcio', '')}"
    yield _text(LEFT, HEIGHT - 8, words, font_size=11, fill="#6b7280")
