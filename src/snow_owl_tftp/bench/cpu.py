"""Which core a process runs on, and what CPU time a server's processes have used.

    with CpuAccount("ours") as account:
        process = start(argv, account, core=0, log_path=...)
        account.used_s()

May know: cgroups, /proc, sched. Must not know servers or loads.

Three ways to count, the best that this machine allows; `how` says which, and reports repeat it:
- cgroup v1 cpuacct: nanoseconds, with every child, also those that have ended;
- cgroup v2 cpu.stat: microseconds, the same;
- the CPU clocks of the processes: nanoseconds, what a child used that has ended in clock ticks (10 ms), and without
  children that were reaped by nobody we see. It needs no right, so it is what a container and an ordinary user have.
  A server that ignores SIGCHLD (tftpd-hpa) is not counted so at all: its children's time goes nowhere.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from snow_owl_tftp.observe.trace.counter import descendants

__all__ = ["PROCESS_CLOCKS", "CpuAccount", "StealWatch", "cores", "end_tree", "start"]

PROCESS_CLOCKS: Final = "CPU clocks of its processes"

_V1: Final = Path("/sys/fs/cgroup/cpuacct")
_V2: Final = Path("/sys/fs/cgroup")
_END_LIMIT_S: Final = 5.0


def cores() -> tuple[int | None, int | None]:
    """(server's core, load's core); None, None where there is only one and nothing to separate."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


class StealWatch:
    """How much of a stretch of time the hypervisor gave to other guests.

    Args:
        watched: Cores; None among them: all.
    """

    def __init__(self, watched: tuple[int | None, ...]) -> None:
        self._watched = set(watched)
        self._began_s = time.monotonic()
        self._before = _steal_s()

    def share(self) -> float | None:
        """Since the beginning, 0..1, of the core that lost most; None where the kernel does not say."""
        wall_s = max(1e-9, time.monotonic() - self._began_s)
        cores = [core for core in self._before if None in self._watched or core in self._watched]
        now = _steal_s()
        return max((min(1.0, (now.get(core, 0.0) - self._before[core]) / wall_s) for core in cores), default=None)


def _steal_s() -> dict[int, float]:
    """Core → stolen so far (proc_stat(5)); empty where the kernel does not tell."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    fields = [line.split() for line in Path("/proc/stat").read_text().splitlines() if re.match(r"cpu\d", line)]
    return {int(field[0][3:]): int(field[8]) * tick_s for field in fields if len(field) > 8}


class CpuAccount:
    """CPU time of one server and all its children.

    Args:
        name: Of the server; part of the cgroup's name.
    """

    def __init__(self, name: str) -> None:
        self._pid: int | None = None
        self._folder: Path | None = None
        self.how = PROCESS_CLOCKS
        for parent, probe, how in (
            (_V1, "cpuacct.usage", "cgroup v1 cpuacct"),
            (_V2, "cgroup.controllers", "cgroup v2 cpu.stat"),
        ):
            folder = parent / f"snow-owl-bench-{os.getpid()}-{name}"
            if (parent / probe).exists() and _made(folder):
                self._folder, self.how = folder, how
                break

    @property
    def procs_file(self) -> str:
        """Where a process enters by writing its PID; empty: nowhere."""
        return str(self._folder / "cgroup.procs") if self._folder else ""

    def follow(self, pid: int) -> None:
        """Say which process is the server, for the count by /proc."""
        self._pid = pid

    def used_s(self) -> float | None:
        """User and system time so far, in seconds; None where nothing tells."""
        if self._folder is None:
            return _used_by_tree_s(self._pid) if self._pid else None
        if self._folder.parent == _V1:
            return int((self._folder / "cpuacct.usage").read_text()) / 1e9
        stat = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            # A group empties a moment after its last process was reaped.
            end_s = time.monotonic() + _END_LIMIT_S
            while not _removed(self._folder) and time.monotonic() < end_s:
                time.sleep(0.02)


def start(
    argv: list[str], account: CpuAccount, *, core: int | None, log_path: Path, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in its account and on its core, in a session of its own.

    The shell enters both before it becomes the server: no thread or child of it can be outside.
    """
    script = '[ -z "$0" ] || echo $$ > "$0"; exec "$@"'
    pin = [] if core is None else ["taskset", "-c", str(core)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, account.procs_file, *pin, *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder,
        )
    account.follow(process.pid)
    return process


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a server that `start` started, with all its children; what does not end in time is killed."""
    pids = {process.pid, *descendants(process.pid)}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end_s = time.monotonic() + _END_LIMIT_S
        while process.poll() is None or any(map(_is_alive, pids - {process.pid})):
            if time.monotonic() > end_s:
                break
            time.sleep(0.02)
        else:
            return


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except OSError:
        return False
    if os.access(folder / "cgroup.procs", os.W_OK) and (
        (folder / "cpuacct.usage").exists() or (folder / "cpu.stat").exists()
    ):
        return True
    folder.rmdir()
    return False


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _used_by_tree_s(pid: int) -> float | None:
    members = (pid, *descendants(pid))
    if any(map(_forgets_children, members)):
        return None
    used = [_used_by_process_s(member) for member in members]
    measured = [seconds for seconds in used if seconds is not None]
    return sum(measured) if measured else None


def _used_by_process_s(pid: int) -> float | None:
    try:
        own_s = time.clock_gettime(_cpu_clock_of(pid))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    children_ticks = sum(int(field) for field in fields[13:15])  # cutime, cstime (proc_pid_stat(5))
    return own_s + children_ticks / os.sysconf("SC_CLK_TCK")


def _forgets_children(pid: int) -> bool:
    """Whether it ignores SIGCHLD: then no time of a child that ends is added to its own (times(2), NOTES)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    ignored = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:")), 0)
    return bool(ignored >> (signal.SIGCHLD - 1) & 1)


def _cpu_clock_of(pid: int) -> int:
    """clock_getcpuclockid(3), which Python lacks: the PID's complement above three bits, CPUCLOCK_SCHED in them."""
    return ~pid << 3 | 2
