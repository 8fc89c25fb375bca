"""A memory cgroup whose file pages can be evicted on demand, as a small memory.max does whenever it likes.

    with evicting_cgroup() as cgroup:   # this process is in it
        cgroup.evict()                  # what it has read of files is in memory no more, mapped or not

May know: cgroup v1 and v2 as mounted below /sys/fs/cgroup. Must not: know TFTP.
Invariants: only pages that were first touched by a process in the group are evicted; the group goes with the `with`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.slow_disk import Unavailable

MOUNTED = Path("/sys/fs/cgroup")
ALL_BYTES = "1G"


def _own_group() -> tuple[Path, str]:
    """Where a group of ours may lie, and the file that evicts."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return MOUNTED / "memory" / path.lstrip("/"), "memory.force_empty"
    return MOUNTED, "memory.reclaim"  # version 2: a group with processes in it has no children with controllers


class EvictingCgroup:
    def __init__(self, path: Path, evicting: str) -> None:
        self.path = path
        self._evicting = path / evicting

    def evict(self) -> None:
        # memory.reclaim says EAGAIN when it found less than it was asked for: it always does.
        try:
            self._evicting.write_text(ALL_BYTES if self._evicting.name == "memory.reclaim" else "0", encoding="ascii")
        except BlockingIOError:
            return


@contextmanager
def evicting_cgroup() -> Iterator[EvictingCgroup]:
    """Raises: Unavailable: no memory cgroup can be made here, or the kernel's are too old to evict on demand."""
    parent, evicting = _own_group()
    group = parent / f"evicting-{os.getpid()}"
    before = parent / "cgroup.procs"
    try:
        group.mkdir()
    except OSError as error:
        raise Unavailable(f"no cgroup in {parent}: {error.strerror}") from None
    try:
        if not (group / evicting).exists():
            raise Unavailable(f"{group} has no {evicting}")
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        yield EvictingCgroup(group, evicting)
    finally:
        before.write_text(str(os.getpid()), encoding="ascii")
        _remove(group)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # a process that has left may be counted a moment longer
        else:
            return
