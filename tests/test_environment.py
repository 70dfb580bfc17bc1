"""How the scripts find a Python: wherever it comes from, and with one line of what to install where there is none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each runs a shell and some Pythons

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "dirname", "tr", "sed", "grep", "head", "tail")  # all that finding a Python takes
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

# A Python of a version, as far as the scripts can see: it says where it is, and may lack a module.
FAKE = """#!/bin/sh
case "$2" in *{lacks}*) exit 1 ;; esac
echo "{version} $0"
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with these tools, and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def fake(path: Path, version: str, lacks: str = "nothing") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FAKE.format(version=version, lacks=lacks), "utf-8")
    path.chmod(0o755)
    return path


def ask(question: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What scripts/env.sh answers, in an environment that holds nothing else."""
    command = ["sh", "-c", f". scripts/env.sh; {question}", "scripts/some"]
    environment |= {"PATH": str(path)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "/nowhere"}], ids=["no home", "empty", "elsewhere"])
def test_a_python_on_the_path(tools: Path, home: dict[str, str]) -> None:
    """It is found under the name python3, whatever HOME is."""
    (tools / "python3").symlink_to(sys.executable)

    done = ask("newest", tools, **home)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{HERE}\n", "")


@pytest.mark.parametrize(
    ("where", "variable"),
    [
        ("home/.pyenv/versions/3.12.9/bin/python", "HOME=home"),
        ("pyenv/versions/3.12.9/bin/python", "PYENV_ROOT=pyenv"),
        ("home/.local/share/uv/python/cpython-3.12.9-linux-x86_64-gnu/bin/python3", "HOME=home"),
        ("data/uv/python/cpython-3.12.9-linux-x86_64-gnu/bin/python3", "XDG_DATA_HOME=data"),
        ("pythons/cpython-3.12.9-linux-x86_64-gnu/bin/python3", "UV_PYTHON_INSTALL_DIR=pythons"),
    ],
)
def test_a_python_of_pyenv_or_uv(tools: Path, tmp_path: Path, where: str, variable: str) -> None:
    """It is found where they keep it, though neither is on the path."""
    python = fake(tmp_path / where, "3.12")
    name, _, folder = variable.partition("=")

    done = ask("oldest; newest; python_for 3.12", tools, **{name: str(tmp_path / folder)})

    assert (done.stdout, done.stderr) == (f"3.12\n3.12\n{python}\n", "")


def test_the_oldest_and_the_newest(tools: Path) -> None:
    """Versions that are not supported do not count, nor what only bears the name."""
    for version in ("3.11", "3.13", "3.14"):
        fake(tools / f"python{version}", version)
    fake(tools / "python3", "3.10")
    fake(tools / "python3.12", "3.10")

    assert ask("versions", tools).stdout.split() == ["3.11", "3.13", "3.14"]


def test_without_a_python(tools: Path) -> None:
    """One line says which versions will do, and how to install one."""
    done = ask("newest", tools)

    assert done.returncode == 1
    assert done.stderr == (
        "error: found no Python of 3.11 3.12 3.13 3.14; on Debian: apt-get install python3 python3-venv\n"
    )


def test_a_python_that_makes_no_environments(tools: Path) -> None:
    """Debian has a package of its own for that: one line names it."""
    fake(tools / "python3", "3.12", lacks="ensurepip")

    done = ask("newest", tools)

    assert done.returncode == 1
    assert done.stderr == (
        "error: Python 3.12 is here but cannot make a virtual environment; on Debian: apt-get install python3.12-venv\n"
    )


def test_with_uv_it_need_not(tools: Path) -> None:
    """uv makes environments itself."""
    fake(tools / "python3", "3.12", lacks="ensurepip")
    fake(tools / "uv", "")

    assert ask("newest", tools).stdout == "3.12\n"
