"""What is in a wheel and in an sdist: `python -m tests.release.contents dist/*`. Needs nothing that is installed."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
STRAY = ("__pycache__", ".pyc", "/generated/", ".venv", "/tests/", "/findings/")  # parts of paths


def is_stray(name: str) -> bool:
    return any(part in f"/{name}" for part in STRAY)


def source() -> set[str]:
    """The files of the package: code, py.typed, pages, protos."""
    paths = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    return {path for path in paths if not is_stray(path)}


def names(archive: Path) -> list[str]:
    """The files of an archive, below the package's own folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.namelist()
    with tarfile.open(archive) as sdist:
        members = [member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()]
    return [name.removeprefix("src/") for name in members]


def faults(found: Iterable[str]) -> list[str]:
    """What is missing, and what should not be there."""
    found = set(found)
    has_licence = any(name.endswith("LICENSE") for name in found)
    return [
        *(f"{name} is missing" for name in sorted(source() - found)),
        *([] if has_licence else ["LICENSE is missing"]),
        *(f"{name} should not be there" for name in sorted(found) if is_stray(name)),
    ]


def main(archives: list[str]) -> int:
    """Print the faults of each archive; 1 if there are any, or if a kind of archive is missing."""
    told = [f"{archive}: {fault}" for archive in archives for fault in faults(names(Path(archive)))]
    if sorted(Path(archive).suffix for archive in archives) != [".gz", ".whl"]:
        told.append(f"expected one wheel and one sdist, not {archives}")
    sys.stdout.writelines(f"{line}\n" for line in told)
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
