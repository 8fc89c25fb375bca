"""Counts the system calls of a running process with eBPF, through bpftrace.

    with Tracer(pid) as tracer:              # from here on every call is counted
        for counts in tracer.follow(): ...   # TraceCounts, once an interval
    tracer.counts                            # all of them, exact

May know: bpftrace, processes, tracefs. Must not print, and must not leave a process behind.

Invariants:
- Entering returns only when every probe is attached; leaving collects what the last interval held.
- The tracer ends nothing but its own bpftrace; the traced process never notices beyond its speed
  (while any probe is attached, every system call of the machine is a little slower: never time a run
  that is traced).

bpftrace 0.17 reads the tracepoints' formats from tracefs. Where none is mounted, it gets one in a mount
namespace of its own (unshare -m), so that the machine stays as it was.
"""

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.trace.counts import TraceCounts, parse_line
from snow_owl_tftp.observe.trace.script import CALLS, READY, TICK, Call, build_script

__all__ = ["Tracer", "descendants", "pid_of_unit", "why_not", "why_not_after_trying"]

_TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")
_PID_NAMESPACE: Final = Path("/proc/self/ns/pid")
_STATUS: Final = Path("/proc/self/status")
_INITIAL_PID_NAMESPACE: Final = 0xEFFFFFFC
"""Inode of it (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""
_CAP_SYS_ADMIN: Final = 21
"""include/uapi/linux/capability.h. CAP_BPF and CAP_PERFMON alone are not enough for bpftrace."""
_ATTACH_LIMIT_S: Final = 30.0
"""23 probes take 1.2 s on an idle machine."""
_EXIT_LIMIT_S: Final = 20.0


def why_not() -> str | None:
    """What keeps this process from tracing, in one line that says what to do; None: nothing."""
    if os.geteuid() != 0:
        return "trace: eBPF needs root; run it with sudo"
    if _PID_NAMESPACE.stat().st_ino != _INITIAL_PID_NAMESPACE:
        return "trace: in a PID namespace (a container) eBPF sees other PIDs; run it on the host, with the host's PID"
    if not _capabilities() >> _CAP_SYS_ADMIN & 1:
        return "trace: eBPF needs CAP_SYS_ADMIN, which this root has not; run it on the host, or privileged"
    if _LOCKDOWN.exists() and "[confidentiality]" in _LOCKDOWN.read_text():
        return "trace: the kernel's lockdown forbids eBPF to read; boot with lockdown=integrity, or without Secure Boot"
    if shutil.which("bpftrace") is None:
        return "trace: bpftrace is not installed; apt-get install bpftrace (dnf, apk: the same name)"
    if _mounted_tracefs() is None and shutil.which("unshare") is None:
        return "trace: no tracefs; mount -t tracefs tracefs /sys/kernel/tracing"
    return None


def why_not_after_trying() -> str | None:
    """As `why_not`, but sure: a container's profile shows in nothing but the attempt. Takes a second or two."""
    if problem := why_not():
        return problem
    try:
        with Tracer(os.getpid()):
            return None
    except ConfigError as error:
        return str(error)


def pid_of_unit(unit: str) -> int:
    """The main process of a systemd unit.

    Raises:
        ConfigError: There is no systemd, no such unit, or it does not run.
    """
    try:
        shown = subprocess.run(
            ["systemctl", "show", "--property=LoadState,MainPID", "--", unit],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ConfigError("trace: --unit needs systemd; use --pid") from error
    if shown.returncode != 0:
        reason = (shown.stderr.strip().splitlines() or ["no answer"])[0]
        raise ConfigError(f"trace: systemctl: {reason}; use --pid")
    properties = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    if (state := properties.get("LoadState")) != "loaded":
        what = "there is no such unit" if state == "not-found" else f"the unit is {state}"
        raise ConfigError(f"trace: {unit}: {what}; look with systemctl list-units --all")
    pid = int(properties.get("MainPID") or 0)
    if pid == 0:
        raise ConfigError(f"trace: unit {unit} does not run; start it with systemctl start {unit}")
    return pid


class Tracer:
    """One bpftrace that counts for one process.

    Args:
        pid: The process; all its threads are counted.
        with_children: Also its descendants, those it has and those it will have.
        interval_s: How often `follow` yields, 0.01 or more.
    """

    def __init__(self, pid: int, *, with_children: bool = False, interval_s: float = 1.0) -> None:
        self.pid = pid
        self.counts = TraceCounts()
        self._with_children = with_children
        self._interval_ms = max(10, round(interval_s * 1000))
        self._bpftrace: subprocess.Popen[bytes] | None = None
        self._target_fd = -1
        self._unread = b""

    def start(self) -> None:
        """Attach; returns when every call is counted.

        Raises:
            ConfigError: Not root, no bpftrace, no such process, or the kernel refused.
        """
        if problem := why_not():
            raise ConfigError(problem)
        try:
            self._target_fd = os.pidfd_open(self.pid)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"trace: no process has the PID {self.pid}; look with pidof snow-owl-tftp") from error
        pids = {self.pid, *(descendants(self.pid) if self._with_children else ())}
        program = build_script(
            pids, with_children=self._with_children, interval_ms=self._interval_ms, calls=_known_calls()
        )
        # A session of its own: Ctrl-C reaches us alone, and we still want its last counts.
        self._bpftrace = subprocess.Popen(
            [*_mount_prefix(), "bpftrace", "-B", "line", "-f", "json", "-e", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._await_ready(self._bpftrace)

    def follow(self, duration_s: float | None = None) -> Iterator[TraceCounts]:
        """The counts since the start, once an interval, until the process ends or `duration_s` has passed."""
        deadline_s = None if duration_s is None else time.monotonic() + duration_s
        while self._bpftrace is not None:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            texts = self._read(left_s)
            if texts is None:
                return
            if TICK in texts:
                yield self.counts

    def stop(self) -> TraceCounts:
        """Detach.

        Returns:
            Everything counted from `start` to now.
        """
        bpftrace, self._bpftrace = self._bpftrace, None
        if bpftrace is not None:
            try:
                bpftrace.send_signal(signal.SIGINT)
                # It prints its maps once more on its way out.
                rest, _ = bpftrace.communicate(timeout=_EXIT_LIMIT_S)
                self._take(rest + b"\n")
            finally:
                bpftrace.kill()
                bpftrace.wait()
        if self._target_fd >= 0:
            os.close(self._target_fd)
            self._target_fd = -1
        return self.counts

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_ready(self, bpftrace: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _ATTACH_LIMIT_S
        assert bpftrace.stdout is not None
        while (left_s := deadline_s - time.monotonic()) > 0:
            if not select.select([bpftrace.stdout], [], [], left_s)[0]:
                continue
            got = os.read(bpftrace.stdout.fileno(), 65536)
            if READY in self._take(got):
                return
            if not got:
                raise ConfigError(f"trace: bpftrace: {self._complaint(bpftrace)}")
        raise ConfigError(f"trace: bpftrace did not attach within {_ATTACH_LIMIT_S:.0f} s")

    def _complaint(self, bpftrace: subprocess.Popen[bytes]) -> str:
        self._bpftrace = None
        _, said = bpftrace.communicate(timeout=_EXIT_LIMIT_S)
        lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        # It warns of RLIMIT_MEMLOCK on every kernel since 5.11, where the limit no longer matters.
        real = [line for line in lines if "RLIMIT_MEMLOCK" not in line]
        if refusals := [line for line in real if "not permitted" in line or "Permission denied" in line]:
            return f"{refusals[0]}: the kernel forbids it here; run it on the host as root, without a security profile"
        return (real or lines or [f"ended with status {bpftrace.returncode}"])[0]

    def _read(self, wait_s: float | None) -> list[str] | None:
        """What bpftrace printed; None when the process, or bpftrace, has ended."""
        bpftrace = self._bpftrace
        assert bpftrace is not None
        assert bpftrace.stdout is not None
        printed_fd = bpftrace.stdout.fileno()
        readable, _, _ = select.select([printed_fd, self._target_fd], [], [], wait_s)
        if printed_fd in readable:
            got = os.read(printed_fd, 65536)
            return self._take(got) if got else None
        return None if self._target_fd in readable else []

    def _take(self, got: bytes) -> list[str]:
        """Reads whole lines into `counts`; returns what else was printed."""
        *lines, self._unread = (self._unread + got).split(b"\n")
        texts = []
        for line in lines:
            result = parse_line(line.decode(), self.counts)
            if isinstance(result, TraceCounts):
                self.counts = result
            elif result is not None:
                texts.append(result)
        return texts


def _capabilities() -> int:
    """The effective ones, a bit each."""
    lines = dict(line.split(":\t", 1) for line in _STATUS.read_text().splitlines() if ":\t" in line)
    return int(lines["CapEff"], 16)


def _mounted_tracefs() -> Path | None:
    return next((folder for folder in _TRACEFS if (folder / "events/syscalls").is_dir()), None)


def _mount_prefix() -> list[str]:
    if _mounted_tracefs():
        return []
    mount = f'mount -t tracefs tracefs {_TRACEFS[0]} && exec "$@"'
    return ["unshare", "--mount", "--", "sh", "-c", mount, "sh"]


def _known_calls() -> list[Call]:
    """Those that this kernel can trace: epoll_pwait2 came with 5.11, arm64 has no poll, select and epoll_wait."""
    folder = (_mounted_tracefs() or _TRACEFS[0]) / "events/syscalls"
    listed = subprocess.run([*_mount_prefix(), "ls", str(folder)], capture_output=True, text=True, check=False)
    known = [call for call in CALLS if f"sys_exit_{call.name}" in listed.stdout.split()]
    if not known:
        reason = (listed.stderr.strip().splitlines() or ["the kernel lacks CONFIG_FTRACE_SYSCALLS"])[0]
        raise ConfigError(f"trace: no system call can be traced here: {reason}")
    return known


def descendants(pid: int) -> set[int]:
    """Processes below `pid`; those that come and go while we look are missed, as any look at /proc misses them."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue
        # The name in brackets may hold anything; the parent is the second field behind it (proc(5)).
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        for child in children.get(ahead.pop(), []):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return found
