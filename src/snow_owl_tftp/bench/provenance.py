"""What figures depend on beside the code under test: machine, versions, the call that made them.

May know: /proc, git, versions of peers. Invariants: no host name, no user, no path of the machine.
"""

import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from snow_owl_tftp import __version__
from snow_owl_tftp.bench.servers import OURS, version_of

__all__ = ["Setting", "machine", "without_paths"]

Setting = dict[str, Any]

_GIT_LIMIT_S: Final = 10.0
_CHECKOUT: Final = Path(__file__).resolve().parents[3]


def machine(
    server_core: int | None,
    load_core: int | None,
    cpu_counted_by: str,
    *,
    arguments: Sequence[str] = (),
    servers: Iterable[str] = (),
) -> Setting:
    """Say where and how a benchmark was made.

    Args:
        server_core: Where servers ran; None: anywhere.
        load_core: The same for the load.
        cpu_counted_by: CpuAccount.how.
        arguments: Of the command, without those that name folders.
        servers: Kinds that were run.
    """
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    pinned = "server and load share one core"
    if server_core is not None:
        pinned = f"server on core {server_core}, load (and relay) on core {load_core}"
    said = {name: without_paths(version_of(name)) for name in dict.fromkeys(servers) if name != OURS}
    return {
        "version": __version__,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "arguments": list(arguments),
        "peers": {name: version for name, version in said.items() if version},
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "pinned": pinned,
        "cpu_counted_by": cpu_counted_by,
    }


def without_paths(text: str) -> str:
    """Absolute paths keep their last part only."""
    return re.sub(r"(?<![\w.])/(?:[\w.+@~-]+/)+", "…/", text)


def _commit() -> str:
    """Short, with "dirty" where files differ from it; empty outside a checkout of our own."""
    if not (_CHECKOUT / ".git").exists():
        return ""
    short, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return f"{short} dirty" if short and changed else short


def _git(*arguments: str) -> str:
    try:
        ran = subprocess.run(
            ["git", "-C", str(_CHECKOUT), *arguments], capture_output=True, text=True, timeout=_GIT_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
