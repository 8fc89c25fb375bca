"""`snow-owl-tftp trace`: the system calls of a server, live, with eBPF.

May know: flags, the tracer and how its counts are shown. Must not know bpftrace.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.trace.counter import Tracer, pid_of_unit
from snow_owl_tftp.observe.trace.counts import TraceCounts

__all__ = ["command"]

_STOP_LIMIT_S: Final = 15
_BECOME: Final = """
import os, signal, sys
telling = int(sys.argv[1])
os.set_inheritable(telling, False)
for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, for itself
    signal.signal(ignored, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGSTOP)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except (OSError, ValueError) as error:
    os.write(telling, str(getattr(error, "strerror", None) or error).encode())
    os._exit(127)
"""
"""Waits for SIGCONT and becomes the command. The descriptor that it inherits closes when the command starts. If it
cannot start, the reason is written there: status 127, as of a shell, could be the command's own."""


@click.command("trace", context_settings={"ignore_unknown_options": True})
@click.option("--pid", type=int, help="The process to count for; all its threads.")
@click.option("--unit", metavar="UNIT", help="The main process of a systemd unit.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.01, 3600), default=1.0, show_default=True, help="Seconds."
)
@click.option("--duration", "duration_s", type=click.FloatRange(0.01), help="Seconds; until it ends or Ctrl-C.")
@click.option("--children", "with_children", is_flag=True, help="Also the processes that it starts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an interval, and a last one for all.")
@click.argument("command_line", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def command(
    pid: int | None,
    unit: str | None,
    interval_s: float,
    duration_s: float | None,
    with_children: bool,
    as_json: bool,
    command_line: tuple[str, ...],
) -> int:
    """Count the system calls of a server process, live and per interval.

    Name the process with --pid or --unit, or start one behind `--` and count it from its first call on; if it ends by
    itself, its exit status is that of the trace (128 and the signal's number where one ended it).
    Needs root and bpftrace. While it runs every process of the machine is a little slower: count in one run,
    measure speed in another.
    """
    if sum((pid is not None, unit is not None, bool(command_line))) != 1:
        raise ConfigError("trace: name one process: --pid PID, --unit UNIT, or -- COMMAND")
    show = _show_json if as_json else _show_table
    with contextlib.ExitStack() as closing:
        if command_line:
            started = closing.enter_context(_stopped(command_line))
            pid, title = started.process.pid, " ".join(command_line)
        else:
            pid = pid_of_unit(unit) if unit else pid
            assert pid is not None
            title = unit or f"PID {pid}"
        tracer = closing.enter_context(Tracer(pid, with_children=with_children, interval_s=interval_s))
        if command_line:
            started.go()
        status = 0
        # Ctrl-C is the usual way to end it: what was counted is shown all the same.
        with contextlib.suppress(KeyboardInterrupt):
            show(tracer, duration_s, title)
            status = started.status_so_far() if command_line else 0
        if command_line:
            with contextlib.suppress(KeyboardInterrupt):
                started.end()
        _show_last(tracer.stop(), title, as_json=as_json)
    return status


@dataclass(frozen=True, slots=True)
class _Started:
    """A process that waits to become the command."""

    process: subprocess.Popen[bytes]
    program: str
    told_fd: int

    def go(self) -> None:
        """Let it become the command; return when that runs.

        Raises:
            ConfigError: It cannot be started.
        """
        os.kill(self.process.pid, signal.SIGCONT)
        if reason := os.read(self.told_fd, 512).decode("utf-8", "replace"):
            raise ConfigError(f"trace: {self.program}: cannot be started: {reason}; name a program, or its path")

    def status_so_far(self) -> int:
        """Its exit status as a shell would put it; 0 while it runs."""
        status = self.process.poll() or 0
        return status if status >= 0 else 128 - status

    def end(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_LIMIT_S)


@contextlib.contextmanager
def _stopped(command_line: tuple[str, ...]) -> Iterator[_Started]:
    """A process that becomes COMMAND when it is told to: nothing it does goes uncounted."""
    told_fd, telling_fd = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BECOME, str(telling_fd), *command_line], pass_fds=[telling_fd]
        )
    finally:
        os.close(telling_fd)
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        yield _Started(process, command_line[0], told_fd)
    finally:
        os.close(told_fd)
        if process.poll() is None:
            process.kill()
            process.wait()


def _show_json(tracer: Tracer, duration_s: float | None, title: str) -> None:
    before, before_s = TraceCounts(), time.monotonic()
    for counts in tracer.follow(duration_s):
        now_s = time.monotonic()
        line = {
            "traced": title,
            "interval_s": round(now_s - before_s, 3),
            "interval": counts.minus(before).to_json(),
            "total": counts.to_json(),
        }
        print(json.dumps(line), flush=True)
        before, before_s = counts, now_s


def _show_table(tracer: Tracer, duration_s: float | None, title: str) -> None:
    from rich.live import Live

    from snow_owl_tftp.observe.trace.table import render

    before, before_s = TraceCounts(), time.monotonic()
    # The last picture is printed by _show_last, which knows the calls of the last interval too.
    with Live(render(before, before, 0, title=title), transient=True, auto_refresh=False) as live:
        for counts in tracer.follow(duration_s):
            now_s = time.monotonic()
            live.update(render(counts, counts.minus(before), now_s - before_s, title=title), refresh=True)
            before, before_s = counts, now_s


def _show_last(counts: TraceCounts, title: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"traced": title, "final": True, "total": counts.to_json()}), flush=True)
        return
    from rich.console import Console

    from snow_owl_tftp.observe.trace.table import render

    Console(file=sys.stdout).print(render(counts, TraceCounts(), 0, title=title))
