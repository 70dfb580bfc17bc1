"""Turn the demo's protos into Python if need be: `python -m interpose.demo.generate`."""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType

from interpose import demo

PROTOS = Path(__file__).parent / "protos"
PACKAGE = "interpose/demo/generated"  # as protoc is to see it, so that generated imports name the real package
STAMP = "fingerprint.txt"


class GenerationError(RuntimeError):
    """The protos could not be turned into Python; the text says what to do."""


@contextmanager
def from_extra(distribution: str) -> Generator[None]:
    """Import in here what only the extra `demo` brings: without it, GenerationError with the line to install it."""
    try:
        yield
    except ImportError as missing:
        raise GenerationError(f'the demo needs {distribution}: pip install "interpose[demo]"') from missing


def load(module: str) -> ModuleType:
    """The generated `module`, made first if it is missing or older than its proto."""
    home = str(_ensured().parent)
    if home not in demo.__path__:
        demo.__path__.insert(0, home)
    return importlib.import_module(f"interpose.demo.generated.{module}")


def ensure(home: Path) -> Path:
    """The folder `generated` with fresh code: in `home`, or a temporary one if `home` cannot be written."""
    folder = home / "generated"
    if is_fresh(folder):
        return folder
    with tempfile.TemporaryDirectory(prefix="interpose-protoc-") as staging:
        code = compile_protos(Path(staging))
        try:
            return install(code, folder)
        except OSError:
            return install(code, _fallback() / "generated")


def is_fresh(folder: Path) -> bool:
    """Whether `folder` holds what today's protos and today's grpcio and protobuf would give."""
    try:
        return (folder / STAMP).read_text(encoding="utf-8") == fingerprint()
    except OSError:
        return False


def fingerprint() -> str:
    """What generated code depends on. Content, not file times: a checkout or a wheel does not keep those."""
    digest = hashlib.sha256()
    for part in (
        *(path.read_bytes() for path in _sources()),
        *(_version(name) for name in ("grpcio", "protobuf")),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def compile_protos(staging: Path) -> Path:
    """Run protoc over every proto and return the folder with the Python it wrote."""
    with from_extra("grpcio-tools"):
        from grpc_tools import protoc
    well_known = Path(protoc.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PACKAGE}={PROTOS}",
            f"--proto_path={well_known}",
            f"--python_out={staging}",
            f"--grpc_python_out={staging}",
            *(f"{PACKAGE}/{path.name}" for path in _sources()),
        ]
    )
    if status != 0:
        raise GenerationError(f"protoc ended with status {status} on {PROTOS}; its messages are above")
    return staging / PACKAGE


def install(code: Path, folder: Path) -> Path:
    """Put the generated modules into `folder`, the stamp last: a process that sees the stamp sees all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in code.glob("*.py"):
        _place(folder / module.name, module.read_text(encoding="utf-8"))
    _place(
        folder / "__init__.py",
        '"""Made from ../protos by `python -m interpose.demo.generate`; edit those."""\n',
    )
    _place(folder / STAMP, fingerprint())
    importlib.invalidate_caches()
    return folder


@functools.cache
def _ensured() -> Path:
    return ensure(Path(__file__).parent)


def _place(path: Path, text: str) -> None:
    # Replaced in one step, as two processes may generate at the same time and each must read whole files.
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _sources() -> list[Path]:
    return sorted(PROTOS.glob("*.proto"))


def _version(distribution: str) -> bytes:
    with from_extra(distribution):
        return metadata.version(distribution).encode()


def _fallback() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="interpose-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def main() -> None:
    """Generate into the package and say where."""
    try:
        print(_ensured())
    except GenerationError as error:
        sys.exit(f"interpose.demo: {error}")


if __name__ == "__main__":
    main()
