"""Policy files for tests."""

import json
from pathlib import Path
from typing import Any

from interpose.policy import Policy, check, load


def written(folder: Path, content: Any, name: str = "policy.json") -> Path:
    """The file, with this text or this value as JSON."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1), "utf-8")
    return path


def loaded(folder: Path, content: Any, name: str = "policy.json", **options: Any) -> Policy:
    return load(written(folder, content, name), **options)


def faults(folder: Path, content: Any, name: str = "policy.json", **options: Any) -> list[str]:
    """What `check` says, without the name of the folder."""
    path = written(folder, content, name)
    return [str(fault).removeprefix(f"{folder}/") for fault in check(path, **options)]
