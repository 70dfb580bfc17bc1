"""Count the prose of the whole project: a table, a file a line, then each word that is to be replaced."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.prose.counting import MOST, Offence, Sentence, offences, percentile, sentences
from tests.prose.passages import of_page, of_source

ROOT = Path(__file__).parents[2]
SOURCE = Path("src") / "interpose"


@dataclass(frozen=True, slots=True)
class Count:
    """What was found in a file."""

    path: Path
    sentences: list[Sentence]
    offences: list[Offence]

    @property
    def group(self) -> str:
        return "docstrings" if self.path.suffix == ".py" else "pages"


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    counts = [counted(path) for path in paths() if not options.only or path.as_posix().startswith(tuple(options.only))]
    _show(f"{'sentences':>9} {'90 %':>5} {'longest':>7} {'to replace':>10}")
    for count in counts:
        _show(_row(count.path.as_posix(), [count]))
    for group in ("pages", "docstrings"):
        _show(_row(f"all {group}", [count for count in counts if count.group == group]))
    for count in counts:
        _print_each(count, options.longer_than)
    failed = list(faults(counts))
    _show(*failed)
    return 1 if failed else 0


def paths() -> Iterator[Path]:
    """Every file with prose in it, as seen from the root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / SOURCE).rglob("*.py")]
    return (path.relative_to(ROOT) for path in sorted(found) if "generated" not in path.parts)


def counted(path: Path) -> Count:
    text = (ROOT / path).read_text("utf-8")
    passages = list(of_source(text) if path.suffix == ".py" else of_page(text))
    return Count(path, list(sentences(passages)), sorted(offences(passages), key=lambda offence: offence.line))


def faults(counts: Iterable[Count]) -> Iterator[str]:
    """What keeps the bounds from being held, in words."""
    counts = list(counts)
    for group in ("pages", "docstrings"):
        words = [sentence.words for count in counts if count.group == group for sentence in count.sentences]
        if percentile(words) > MOST:
            yield f"{group}: one sentence in ten has more than {MOST} words: see them with --longer-than {MOST}"
    if found := sum(len(count.offences) for count in counts):
        yield f"{found} words to replace: docs/design/style.md"


def _row(name: str, counts: list[Count]) -> str:
    words = [sentence.words for count in counts for sentence in count.sentences]
    found = sum(len(count.offences) for count in counts)
    return f"{len(words):9} {percentile(words):5} {max(words, default=0):7} {found or '-':>10}  {name}"


def _print_each(count: Count, longer_than: int | None) -> None:
    for offence in count.offences:
        _show(f"{count.path}:{offence.line}: {offence.found!r}: {offence.instead}")
    for sentence in count.sentences:
        if longer_than is not None and sentence.words > longer_than:
            _show(f"{count.path}:{sentence.line}: {sentence.words} words: {' '.join(sentence.text.split())}")


def _show(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/prose", description=__doc__)
    parser.add_argument("only", nargs="*", help="paths to count, or how they begin: docs/retry.md src/interpose/web")
    parser.add_argument("--longer-than", type=int, metavar="WORDS", help="show each sentence that has more words")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
