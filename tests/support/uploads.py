"""A server that takes uploads, in a thread of this process or as the command.

Invariants: when it has ended no file is left open by it, in this process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import ServerProcess, ServerThread, serve_command, serve_in_thread

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.writes import UploadAnswerer

WRITABLE = {
    "write_config.enabled": True,
    "write_config.allowed_patterns": ("up/**",),
    "write_config.on_existing": "replace",
    "retransmit.initial_ms": 3000,
    "retransmit.give_up_s": 20,
    "retransmit.half_open_give_up_s": 20,
}
# For tests in which somebody falls silent; no other may depend on a busy machine's answering within a second.
IMPATIENT: dict[str, object] = {
    "retransmit.initial_ms": 100,
    "retransmit.give_up_s": 2,
    "retransmit.half_open_give_up_s": 2,
}


def make_root(parent: Path) -> Path:
    root = parent / "root"
    (root / "up").mkdir(parents=True)
    return root


@contextmanager
def serve_uploads(root: Path, **write_config: object) -> Iterator[ServerThread]:
    """`write_config` holds further keys of that table; a key with a dot is one of another (".key": of none)."""
    further = {key.removeprefix(".") if "." in key else f"write_config.{key}": v for key, v in write_config.items()}
    overrides = {**WRITABLE, **further}
    settings = override(Settings(), {"root_dir": str(root), **overrides}, source="test")
    desk = UploadAnswerer(settings)
    decider = FileDecider(settings, desk.answer)
    try:
        with serve_in_thread(root, overrides, decider=decider) as server:
            yield server
    finally:
        desk.close()
        decider.close()


@contextmanager
def serve_uploads_command(root: Path, toml: str = "", *flags: str) -> Iterator[ServerProcess]:
    """`toml` are further lines of [write_config]."""
    config = root.parent / f"{root.name}.toml"
    config.write_text(
        f'[write_config]\nenabled = true\nallowed_patterns = ["up/**"]\non_existing = "replace"\n{toml}\n'
    )
    with serve_command(root, "--config", str(config), *flags) as server:
        yield server


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
