"""Servers for tests: the real command in a process of its own, and a TransferServer in a thread of this one.

    with serve_command(root, "--workers", "2") as server:
        Client(server.address).get("boot.img")

May know: how to start and end them. Must not: know what they answer.
Invariants: what was started is ended, also when the test fails, and a process that does not end in time is killed and
fails the test; no test waits for a fixed time, but to see that nothing happens in it.
"""

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import FLOWS

from snow_owl_tftp._engine.engine import Engine
from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.log import LogFile, make_logger
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.loop import TransferServer
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Decider

Address = tuple[str, int]
READY = re.compile(rb"listening on \[?([^\]\n]*)\]?:(\d+)\n")
DEADLINE_S = 20.0
QUIET_S = 0.02
"""Of CPU in a second: two ticks of the kernel's account."""


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Returns the first true value of `condition`; fails the test when there is none in time."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s} s")
        time.sleep(0.005)
    return value


@dataclass(slots=True)
class ServerProcess:
    """`snow-owl-tftp serve` as a user starts it."""

    process: subprocess.Popen[bytes]
    addresses: list[Address]
    ready_after_s: float
    stderr_path: Path

    @property
    def address(self) -> Address:
        """Where to send requests; a wildcard is reached through the loopback."""
        host, port = self.addresses[0]
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port

    @property
    def log(self) -> str:
        """Standard error so far."""
        return self.stderr_path.read_text(encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        return self.process.wait(deadline_s)


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snow_owl_tftp", "serve", *arguments]


@contextmanager
def serve_command(
    root: Path | None,
    *flags: str,
    stderr_path: Path | None = None,
    binds: tuple[str, ...] = ("127.0.0.1:0",),
    **popen: Any,
) -> Iterator[ServerProcess]:
    """Starts the command, waits until it is ready, and ends it with SIGTERM, which has to work.

    `root` None: the configuration file names it, and the caller names `stderr_path`.
    """
    if stderr_path is None:
        assert root is not None
        stderr_path = root.parent / f"{root.name}.stderr"
    arguments = [*([str(root)] if root else []), *flags, *(part for bind in binds for part in ("--bind", bind))]
    began = time.monotonic()
    with stderr_path.open("wb") as stderr:
        process = subprocess.Popen(command_line(*arguments), stdout=subprocess.PIPE, stderr=stderr, **popen)
    try:
        addresses = _read_ready_lines(process, len(binds), stderr_path)
        yield ServerProcess(process, addresses, time.monotonic() - began, stderr_path)
        if process.poll() is None:
            process.terminate()
            assert process.wait(DEADLINE_S) == 0, stderr_path.read_text(encoding="utf-8")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _read_ready_lines(process: subprocess.Popen[bytes], count: int, stderr_path: Path) -> list[Address]:
    assert process.stdout
    addresses = []
    for _ in range(count):
        line = process.stdout.readline()
        match = READY.fullmatch(line)
        assert match, f"expected a ready line, got {line!r}; {stderr_path.read_text(encoding='utf-8')}"
        addresses.append((match[1].decode(), int(match[2])))
    return addresses


def run_command(*arguments: str, **popen: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command that is expected to end by itself."""
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=DEADLINE_S, check=False, **popen
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, from /proc/PID/stat (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_a_quiet_second(pid: int, tries: int = 5) -> float:
    """CPU seconds that a process uses in one second: the first of a few that is quiet, or the least.

    What was left to do when this was asked is done in the first of them; who is woken again and again is so in each.
    """
    used_s = [math.inf]
    while min(used_s) > QUIET_S and len(used_s) <= tries:
        before_s = cpu_seconds(pid)
        time.sleep(1.0)  # the measurement itself, not a wait for something
        used_s.append(cpu_seconds(pid) - before_s)
    return min(used_s)


@dataclass(slots=True)
class ServerThread:
    """A TransferServer in a thread with an event loop of its own."""

    server: TransferServer
    loop: asyncio.AbstractEventLoop
    log_path: Path
    errors: list[BaseException] = field(default_factory=list)

    @property
    def address(self) -> Address:
        host, port = self.server.addresses[0]
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    @property
    def engine(self) -> Engine:
        """That of the run which is under way."""
        assert self.server._serving is not None
        return self.server._serving.engine

    @property
    def waiting_total(self) -> int:
        """Requests that are not decided yet."""
        return self.server._serving.waiting_total if self.server._serving is not None else 0

    def counters(self) -> Mapping[str, Any]:
        return self.server.counters()

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs a coroutine function in the server's loop."""
        return asyncio.run_coroutine_threadsafe(function(), self.loop).result(DEADLINE_S)


def make_server(
    root: Path,
    overrides: Mapping[str, object] | None = None,
    *,
    decider: Decider | None = None,
    log_path: Path | None = None,
) -> tuple[TransferServer, Callable[[], None]]:
    """Returns a TransferServer that is not started, and what to call when it has stopped."""
    log_path = log_path or root.parent / f"{root.name}.log"
    usual: dict[str, object] = {"root_dir": str(root), "bind_addr": "127.0.0.1:0", "logging.level": "debug"}
    if FLOWS is not None:
        usual["performance.platform.batch.enable_flows"] = FLOWS
    settings = override(Settings(), {**usual, **(overrides or {})}, source="test")
    log_file = LogFile(str(log_path))
    audit = AuditLog(settings.logging.audit_file if settings.logging.audit_enabled else "")
    listening = Listening()
    generation = Generation.of(settings, listening, by_class=not decider)
    files = None if decider else FileDecider(settings, generation=generation)

    def close() -> None:
        if files:
            files.close()
        audit.close()
        log_file.close()

    report = Report(settings, make_logger(settings.logging, log_file), audit)
    server = TransferServer(settings, decider or files, report)
    server.set_classes(generation.classes)
    server.on_listening = lambda addresses: setattr(listening, "addresses", addresses)
    if files:
        files.texts.abort = server.abort
    return server, close


@contextmanager
def serve_in_thread(
    root: Path,
    overrides: Mapping[str, object] | None = None,
    *,
    decider: Decider | None = None,
    log_path: Path | None = None,
) -> Iterator[ServerThread]:
    """Runs a TransferServer in this process; `overrides` are settings by key path."""
    log_path = log_path or root.parent / f"{root.name}.log"
    server, close = make_server(root, overrides, decider=decider, log_path=log_path)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server-loop")
    thread.start()
    running = ServerThread(server, loop, log_path)
    loop.set_exception_handler(lambda _, context: running.errors.append(context.get("exception") or context["message"]))
    try:
        running.call(server.start)
        yield running
        running.call(server.stop)
        assert not running.errors, running.errors
    finally:
        running.call(server.stop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        close()
