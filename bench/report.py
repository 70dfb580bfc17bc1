"""The figures as tables: for a terminal, and for the README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import instructions
from bench.arms import AGAIN, OBSERVERS, RAW
from bench.families import MODULES
from bench.figures import Figures, Results
from bench.places import COUNTS, DIRECTIONS, MODES, SIDES, TAPS
from bench.stats import Spread
from bench.targets import Verdict, verdicts

BEGIN = "<!-- figures: begin; written by `python -m bench --readme` -->"
END = "<!-- figures: end -->"

BEGIN_COUNTED = "<!-- instructions: begin; written by `python -m bench --only instructions --readme` -->"
END_COUNTED = "<!-- instructions: end -->"

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Results) -> Iterator[Table]:
    """All tables of a run that have rows."""
    made = (
        _wire(results.wire),
        _unary(results.isolated),
        _streams(results.isolated),
        _counted(results.instructions),
        _targets(verdicts(results)),
    )
    return (table for table in made if table.rows)


def text(results: Results) -> str:
    """For a terminal."""
    parts = [_described(results), *map(_as_text, tables(results)), *_absent(results)]
    return "\n\n".join(parts)


def markdown(results: Results) -> str:
    """For the README."""
    facts = "\n".join(f"- {name}: {value}" for name, value in results.about.items())
    return "\n\n".join([facts, *map(_as_markdown, tables(results)), *_absent(results)])


def rewrite(readme: Path, results: Results) -> None:
    """Put this run's tables between the markers of the README; instructions have a place of their own, as they have a run."""
    begins, ends = (BEGIN_COUNTED, END_COUNTED) if results.instructions else (BEGIN, END)
    before, begin, rest = readme.read_text().partition(begins)
    _, end, after = rest.partition(ends)
    if not (begin and end):
        raise SystemExit(f"{readme} lacks the markers {begins!r} and {ends!r}; put them back where the tables belong")
    readme.write_text(f"{before}{begins}\n\n{markdown(results)}\n\n{ends}{after}")


def _described(results: Results) -> str:
    return ", ".join(f"{name} {value}" for name, value in results.about.items())


def _absent(results: Results) -> Iterator[str]:
    for family, why in results.missing.items():
        yield f"SKIPPED {family}: cannot be imported here ({why})"


# What the tables hold


def _wire(figures: Figures) -> Table:
    header = ("", *(f"n = {n}" for n in COUNTS), "10 over 5", "us per layer", f"outcome, n = {OBSERVERS}")
    rows = [row for mode in MODES for row in _wire_rows(figures, mode)]
    return Table(
        "On the wire: CPU of client and server together, ratio to raw (added on its own side, us)",
        header,
        rows,
    )


def _wire_rows(figures: Figures, mode: str) -> Iterator[list[str]]:
    base = f"{mode}/client/{RAW}/noop/0"
    if f"{base}/wall_us" not in figures:
        return
    client, server, wall = (figures[f"{base}/{clock}_us"].middle for clock in ("client", "server", "wall"))
    takes = f"{figures[f'{mode}/takes'].middle:.1f} takes"
    yield [f"{mode} raw", f"{client:.0f} + {server:.0f} us", f"wall {wall:.0f} us", takes, *[NOTHING] * 3]
    for side in SIDES:
        yield [f"{mode} {side}: raw again", _ratio(figures, f"{mode}/{side}/{AGAIN}/noop/0"), *[NOTHING] * 5]
        for family in MODULES:
            stem = f"{mode}/{side}/{family}"
            if f"{stem}/noop/1/ratio" in figures:
                yield [f"{mode} {side}: {family}", *_wire_cells(figures, stem)]


def _wire_cells(figures: Figures, stem: str) -> Iterator[str]:
    for count in COUNTS:
        yield _ratio(figures, f"{stem}/noop/{count}")
    yield _times(figures[f"{stem}/noop/ten-to-five"])
    yield _plain(figures[f"{stem}/noop/slope_us"], "{:.2f}")
    yield _ratio(figures, f"{stem}/observe/{OBSERVERS}")


def _ratio(figures: Figures, arm: str) -> str:
    return f"{_times(figures[f'{arm}/ratio'])} ({figures[f'{arm}/added_us'].middle:+.1f})"


def _times(figure: Spread) -> str:
    return f"×{figure.middle:.3f} ±{figure.error:.3f}"


def _plain(figure: Spread | None, form: str) -> str:
    return NOTHING if figure is None else form.format(figure.middle)


def _unary(figures: Figures) -> Table:
    header = ("", "n = 0", *(f"n = {n}" for n in COUNTS), "per layer", "per layer that sees the outcome")
    rows = [row for mode in MODES for side in SIDES for row in _unary_rows(figures, f"{mode}/{side}")]
    return Table("Isolated: ns per unary call, no network", header, rows)


def _unary_rows(figures: Figures, place: str) -> Iterator[list[str]]:
    for family in MODULES:
        stem = f"{place}/{family}"
        if f"{stem}/noop/slope_ns" not in figures:
            continue
        names = [f"{place}/{RAW}/noop/0/ns", *(f"{stem}/noop/{n}/ns" for n in COUNTS)]
        names += [f"{stem}/noop/slope_ns", f"{stem}/observe/slope_ns"]
        yield [f"{place.replace('/', ' ')}: {family}", *(_plain(figures[name], "{:.0f}") for name in names)]


def _streams(figures: Figures) -> Table:
    header = ("", "raw", "no tap", *(f"{n} tap{'s' * (n > 1)}" for n in TAPS), "first adds", "each further")
    rows = [
        row
        for direction in DIRECTIONS
        for mode in MODES
        for side in SIDES
        for row in _stream_rows(figures, f"{mode}/{side}", direction)
    ]
    return Table("Isolated: ns per message of a stream, no network", header, rows)


def _stream_rows(figures: Figures, place: str, direction: str) -> Iterator[list[str]]:
    for family in MODULES:
        stem = f"{place}/{family}/{direction}"
        if f"{stem}/first_ns" not in figures:
            continue
        names = [f"{place}/{RAW}/{direction}/0/ns", *(f"{stem}/{n}/ns" for n in (0, *TAPS))]
        names += [f"{stem}/first_ns", f"{stem}/further_ns"]
        title = f"{place.replace('/', ' ')}, {direction}: {family}"
        yield [title, *(_plain(figures.get(name), "{:.0f}") for name in names)]


def _counted(counts: Mapping[str, float]) -> Table:
    header = ("", *(f"n = {n}" for n in instructions.COUNTS), "per layer", "n = 1 beside native", "n = 5 beside native")
    rows = [row for mode in MODES for row in _counted_rows(counts, mode)]
    return Table("Instructions of a unary RPC on the wire, added to raw", header, rows)


def _counted_rows(counts: Mapping[str, float], mode: str) -> Iterator[list[str]]:
    base = counts.get(f"{mode}/client/{RAW}/noop/0")
    if base is None:
        return
    yield [f"{mode} raw", f"{base / 1000:.0f} k in all", *[NOTHING] * 4]
    for side in SIDES:
        native = instructions.added(counts, f"{mode}/{side}/native")
        for family in (*MODULES, instructions.ATTACHED):
            if added := instructions.added(counts, f"{mode}/{side}/{family}"):
                one, five = added
                beside = [f"×{mine / theirs:.2f}" for mine, theirs in zip(added, native, strict=False)]
                cells = [f"{one / 1000:+.0f} k", f"{five / 1000:+.0f} k", f"{(five - one) / 4000:.1f} k"]
                yield [f"{mode} {side}: {family}", *cells, *(beside or [NOTHING] * 2)]


def _targets(found: Sequence[Verdict]) -> Table:
    places = [f"{mode} {side}" for mode in MODES for side in SIDES]
    by_target: dict[str, dict[str, str]] = {}
    for verdict in found:
        by_target.setdefault(verdict.target, {})[verdict.place] = str(verdict)
    rows = [[target, *(cells.get(place, NOTHING) for place in places)] for target, cells in by_target.items()]
    return Table("Targets", ("", *places), rows)


# How they look


def _as_text(table: Table) -> str:
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = ("  ".join(_aligned(line, widths)).rstrip() for line in lines)
    return "\n".join([table.title, *body])


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    yield cells[0].ljust(widths[0])
    for cell, width in zip(cells[1:], widths[1:], strict=True):
        yield cell.rjust(width)


def _as_markdown(table: Table) -> str:
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in (table.header, rule, *table.rows))
    return f"**{table.title}**\n\n{rows}"
