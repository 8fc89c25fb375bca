"""Template files: read whole, at the start and at a reload, so that no request ever waits for them.

    [[templates]] without template_dir   each file by its own path; nothing else can be included
    template_dir                         every *.j2 below it, by its path from there, and the files that entries name

May know: paths. Must not know what a template means.

Invariants:
- With `template_dir` nothing outside of it is read, wherever links lead, and whatever changes meanwhile: each file is
  opened beneath it, as files are that clients ask for. Names that begin with a dot are left out.
- How much is read is bounded: files, bytes of each, bytes of all.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple

from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.content.source import NotHere
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.linux.paths import real_path

__all__ = ["MAX_FILE_BYTES", "read_templates"]

_SUFFIX: Final = ".j2"
_MAX_FILES: Final = 4_096
MAX_FILE_BYTES: Final = 1 << 20
_MAX_BYTES: Final = 16 << 20
_NO_FILE: Final = "no such file; name one that this user may read"


def read_templates(folder: str, names: Iterable[str]) -> dict[str, str]:
    """Read templates; may wait for the disk.

    Args:
        folder: `template_dir`; empty: `names` are paths of their own.
        names: What the entries name.

    Returns:
        Each by the name that others include it by.

    Raises:
        ConfigError: One cannot be read, is no text or too large, or lies outside of `folder`; or there are too many.
    """
    base = real_path(folder) if folder else ""
    wanted = dict.fromkeys(names)
    if folder:
        wanted |= dict.fromkeys(_below(base))
    if len(wanted) > _MAX_FILES:
        raise ConfigError(f"template_dir: {folder}: {len(wanted)} templates; {_MAX_FILES} is the most")
    sources: dict[str, str] = {}
    left_bytes = _MAX_BYTES
    with closing(FileTree(base, key="template_dir")) if folder else nullcontext() as tree:
        for name in wanted:
            sources[name], size_bytes = _read(Path(base, name), name, tree)
            left_bytes -= size_bytes
            if left_bytes < 0:
                most = f"{_MAX_BYTES >> 20} MiB"
                raise ConfigError(f"templates: more than {most} in all; move what is no template elsewhere")
    return sources


def _below(base: str) -> Iterator[str]:
    """Raises: ConfigError."""

    def refuse(error: OSError) -> None:
        raise ConfigError(f"template_dir: {error.filename}: {error.strerror}; let this user read it") from error

    for folder, folders, files in os.walk(base, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if name.endswith(_SUFFIX) and not name.startswith(".") and _is_inside(base, path):
                yield str(path.relative_to(base))


def _is_inside(base: str, path: Path) -> bool:
    return Path(real_path(path)).is_relative_to(base)


class _Named(NamedTuple):
    """A file of the directory; a `Named`."""

    paths: tuple[bytes, ...]
    require: Literal["nothing"] = "nothing"


def _read(path: Path, name: str, tree: FileTree | None) -> tuple[str, int]:
    """Raises: ConfigError."""
    try:
        with _open(path) if tree is None else _open_below(tree, path, name) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"templates: {path}: {error.strerror}; name a file that this user may read") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"templates: {path}: larger than {MAX_FILE_BYTES >> 20} MiB; that is no template")
    try:
        return data.decode("utf-8"), len(data)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"templates: {path}:{line}: not UTF-8; save it as UTF-8") from None


def _open(path: Path) -> BinaryIO:
    """Raises: ConfigError; OSError."""
    if not path.is_file():  # a FIFO without a writer would hold whoever opens it for ever
        raise ConfigError(f"templates: {path}: {_NO_FILE}")
    return path.open("rb")


def _open_below(tree: FileTree, path: Path, name: str) -> BinaryIO:
    """Raises: ConfigError."""
    found = tree.open(_Named((os.fsencode(name),)))
    if not isinstance(found, NotHere):
        return os.fdopen(found.fd, "rb")
    if isinstance(found.refusal, OutsideRootError):
        raise ConfigError(f"templates: {path}: a link leads out of template_dir; put the file itself there")
    why = found.refusal.why
    raise ConfigError(f"templates: {path}: {why}; let this user read it" if why else f"templates: {path}: {_NO_FILE}")
