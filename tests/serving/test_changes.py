"""What `--reload` watches: Python files that are new, gone or written."""

import os
import threading
from pathlib import Path

from interpose.serving.changes import Changes, watch
from tests.support.patience import PATIENCE


def write(file: Path, when: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    os.utime(file, (when, when))


def test_files_that_are_new_gone_or_written(tmp_path: Path) -> None:
    """Each once, by name; other files, hidden folders and those of packages are passed over."""
    for name in ("a.py", "b.py", "sub/c.py"):
        write(tmp_path / name, 1)
    changes = Changes([str(tmp_path)])

    quiet = changes.since()
    write(tmp_path / "a.py", 2)
    (tmp_path / "b.py").unlink()
    for name in ("new.py", "data.json", ".git/d.py", ".venv/e.py", "node_modules/f.py"):
        write(tmp_path / name, 3)

    assert quiet == []
    assert changes.since() == [str(tmp_path / name) for name in ("a.py", "b.py", "new.py")]
    assert changes.since() == []


def test_it_is_watched_until_it_is_over(tmp_path: Path) -> None:
    """The one who asked is called with the names."""
    told: list[list[str]] = []
    over, called = threading.Event(), threading.Event()

    def tell(changed: list[str]) -> None:
        told.append(changed)
        called.set()

    write(tmp_path / "a.py", 1)
    thread = threading.Thread(target=watch, args=([str(tmp_path)], tell, over))
    thread.start()
    number = 2
    while not called.wait(0.05):  # until a look comes after a change
        write(tmp_path / "a.py", number)
        number += 1
    over.set()
    thread.join(PATIENCE)

    assert told[0] == [str(tmp_path / "a.py")]
