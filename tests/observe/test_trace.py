"""The tracer against a real server: what eBPF counts is what the engine counts.

Skipped, by name, where bpftrace cannot run: scripts/install-peers.sh installs it, and it needs root.
"""

import concurrent.futures
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.support.client import Client, Options, Transfer
from tests.support.server import ServerThread, serve_in_thread, wait_for
from tests.support.tracing import needs_trace, tracing  # noqa: F401 - a fixture is used by its name

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.trace import counter as trace
from snow_owl_tftp.observe.trace.counter import Tracer, pid_of_unit
from snow_owl_tftp.observe.trace.counts import TraceCounts

CONTENT = random.Random(SEED).randbytes(200_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_bytes(CONTENT)
    return tmp_path / "root"


def download(served: ServerThread, options: Options | None = None) -> Transfer:
    """By recvfrom and sendto, in this process: the batched calls that the tracer sees are the engine's alone."""
    with Client(served.address) as client:
        transfer = client.get("f", options=options)
    assert transfer.payload == CONTENT
    return transfer


@dataclass(frozen=True)
class Traced:
    """What the tracer counted, what the engine counted meanwhile, and what the clients said and heard."""

    counts: TraceCounts
    engine: dict[str, int]
    said: int
    heard: int


def traced(served: ServerThread, options: Options | None = None, *, times: int = 1) -> Traced:
    before = dict(served.counters())
    with Tracer(os.getpid()) as tracer, concurrent.futures.ThreadPoolExecutor(times) as pool:
        transfers = list(pool.map(lambda _: download(served, options), range(times)))
        wait_for(lambda: served.counters()["live_transfers"] == 0, "the last ACKs")
    after = served.counters()
    engine = {name: after[name] - before[name] for name in after if isinstance(after[name], int)}
    said, heard = (sum(len(getattr(transfer, which)) for transfer in transfers) for which in ("said", "heard"))
    return Traced(tracer.counts, engine, said, heard)


@needs_trace
def test_batched_calls_are_the_engines_own_figures(root: Path) -> None:
    with serve_in_thread(root, {"performance.platform.batch.batch_timeout_us": 200}) as served:
        seen = traced(served, times=4)
    engine, receives, sends = seen.engine, seen.counts.of("recvmmsg"), seen.counts.of("sendmmsg")
    assert receives.calls == engine["recvmmsg_calls"] > 0
    assert receives.empty == engine["recvmmsg_empty"]
    assert receives.datagrams == engine["datagrams_received"] == seen.said
    assert receives.calls < seen.said, "four clients at once, and nothing was batched"
    assert sends.calls == engine["sendmmsg_calls"] > 0
    assert sends.datagrams == engine["datagrams_sent"]


@needs_trace
def test_trains_count_as_their_datagrams(root: Path) -> None:
    with serve_in_thread(root) as served:
        seen = traced(served, {"blksize": 1428, "windowsize": 16})
    assert seen.engine["gso_trains"] > 0, "nothing was joined, so this shows nothing"
    assert sum(seen.counts.wire_datagrams.values()) == seen.engine["datagrams_sent"] + seen.said
    assert seen.counts.of("sendmmsg").calls == seen.engine["sendmmsg_calls"]
    assert seen.counts.of("sendmmsg").datagrams < seen.engine["datagrams_sent"]


@needs_trace
def test_batching_turned_off_is_seen_as_plain_calls(root: Path) -> None:
    off = {"enable_recvmmsg": False, "enable_sendmmsg": False}
    with serve_in_thread(root, {f"performance.platform.batch.{key}": value for key, value in off.items()}) as served:
        seen = traced(served)
    assert seen.counts.of("recvmmsg").calls == 0
    assert seen.counts.of("sendmmsg").calls == 0
    # Not equal: asyncio wakes its loop through a socket pair, with recv and send of its own.
    assert seen.counts.of("recvfrom").moved >= seen.engine["datagrams_received"] + seen.heard
    assert seen.counts.of("sendto").moved >= seen.engine["sendto_calls"] + seen.said
    assert seen.engine["sendto_calls"] == seen.heard


@needs_trace
def test_children_are_counted_when_asked(tmp_path: Path) -> None:
    sender = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', 9))"
    # The traced one waits for a line, then starts another process that sends.
    script = f"import subprocess, sys; input(); subprocess.run([sys.executable, '-c', {sender!r}], check=True); input()"
    for with_children, expected in ((True, 1), (False, 0)):
        process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
        assert process.stdin
        try:
            with Tracer(process.pid, with_children=with_children) as tracer:
                process.communicate(b"\n\n", timeout=20)
            assert tracer.counts.of("sendto").calls == expected
        finally:
            process.kill()
            process.wait()


@needs_trace
def test_trace_ends_with_the_process() -> None:
    process = subprocess.Popen(["sleep", "0.3"])
    try:
        with Tracer(process.pid, interval_s=0.05) as tracer:
            for _ in tracer.follow(20):
                pass
        assert process.poll() == 0
    finally:
        process.kill()
        process.wait()


@needs_trace
def test_interval_yields_totals_that_only_grow(root: Path) -> None:
    with serve_in_thread(root) as served, Tracer(os.getpid(), interval_s=0.05) as tracer:
        download(served)
        seen = [counts.of("recvmmsg").calls for counts in tracer.follow(0.4)]
        assert len(seen) >= 3
        assert seen == sorted(seen)
        assert tracer.stop().of("recvmmsg").calls >= seen[-1]


@needs_trace
def test_process_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(ConfigError, match="no process has the PID 4194304") as raised, Tracer(4194304):
        pass
    assert len(str(raised.value).splitlines()) == 1


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_not_root_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="needs root; run it with sudo"):
        Tracer(os.getpid()).start()


def test_unit_without_systemd_is_one_line_that_says_what_to_do(no_programs: None) -> None:
    with pytest.raises(ConfigError, match="--unit needs systemd; use --pid"):
        pid_of_unit("snow-owl-tftp.service")


@pytest.mark.parametrize(
    ("shown", "status", "said"),
    [
        ("LoadState=loaded\nMainPID=0", 0, "does not run; start it with systemctl start x.service"),
        ("MainPID=0\nLoadState=not-found", 0, "x.service: there is no such unit; look with systemctl list-units"),
        ("MainPID=0\nLoadState=masked", 0, "x.service: the unit is masked; look with systemctl list-units"),
        ("", 1, "systemctl: no answer; use --pid"),
    ],
)
def test_unit_that_does_not_run_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: str, status: int, said: str
) -> None:
    fake_program(tmp_path, "systemctl", f"echo '{shown}'; exit {status}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=said):
        pid_of_unit("x.service")


def test_unit_is_its_main_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_program(tmp_path, "systemctl", "echo LoadState=loaded; echo MainPID=4711")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert pid_of_unit("x.service") == 4711


def fake_program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


# ---- kernels and containers that this machine is not


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is taken for tracefs, and holds recvmmsg and sendto; root asks, and bpftrace does nothing."""
    for call in ("recvmmsg", "sendto"):
        (tmp_path / f"events/syscalls/sys_exit_{call}").mkdir(parents=True)
    monkeypatch.setattr(trace, "_TRACEFS", (tmp_path,))
    monkeypatch.setattr(trace, "_CAP_SYS_ADMIN", 0)  # root has CAP_CHOWN, so this is "has it"
    (tmp_path / "status").write_text("Name:\tx\nCapEff:\t0000000000000001\n")
    monkeypatch.setattr(trace, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(trace, "_INITIAL_PID_NAMESPACE", Path("/proc/self/ns/pid").stat().st_ino)
    monkeypatch.setattr(trace, "_LOCKDOWN", tmp_path / "lockdown")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fake_program(tmp_path, "bpftrace", "exit 0")
    return tmp_path


def test_missing_bpftrace_is_one_line_that_says_what_to_do(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel / "bpftrace").unlink()
    monkeypatch.setenv("PATH", str(kernel))
    with pytest.raises(ConfigError, match="bpftrace is not installed; apt-get install bpftrace"):
        Tracer(os.getpid()).start()


def test_calls_that_the_kernel_cannot_trace_are_left_out(kernel: Path) -> None:
    fake_program(kernel, "bpftrace", f'echo "$6" > {kernel}/program; echo \'{{"type": "printf", "data": "ready"}}\'')
    with Tracer(os.getpid()):
        pass
    program = (kernel / "program").read_text()
    assert re.findall(r"sys_exit_(\w+)", program) == ["recvmmsg", "sendto"]


def test_kernel_without_tracepoints_of_calls_is_one_line(kernel: Path) -> None:
    for folder in (kernel / "events/syscalls").iterdir():
        folder.rmdir()
    with pytest.raises(ConfigError, match="no system call can be traced here: the kernel lacks CONFIG_FTRACE_SYSCALLS"):
        Tracer(os.getpid()).start()


def test_container_is_one_line_that_says_what_to_do(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_INITIAL_PID_NAMESPACE", 1)
    with pytest.raises(ConfigError, match=r"PID namespace .*; run it on the host, with the host's PID"):
        Tracer(os.getpid()).start()


def test_root_without_capabilities_is_one_line_that_says_what_to_do(kernel: Path) -> None:
    (kernel / "status").write_text("CapEff:\t0000000000000000\n")
    with pytest.raises(ConfigError, match=r"needs CAP_SYS_ADMIN, .*; run it on the host, or privileged"):
        Tracer(os.getpid()).start()


@pytest.mark.parametrize(("mode", "refused"), [("[confidentiality]", True), ("[integrity]", False)])
def test_lockdown_is_one_line_that_says_what_to_do(kernel: Path, mode: str, refused: bool) -> None:
    (kernel / "lockdown").write_text(f"none {mode}\n")
    assert (trace.why_not() or "").startswith("trace: the kernel's lockdown") is refused


def test_refusal_by_the_kernel_is_one_line_that_says_what_to_do(kernel: Path) -> None:
    said = "couldn't set RLIMIT_MEMLOCK\nERROR: failed to create map: Operation not permitted\nMake sure you have"
    fake_program(kernel, "bpftrace", f'echo "{said}" >&2; exit 1')
    with pytest.raises(
        ConfigError, match=r"create map: Operation not permitted: .* run it on the host as root"
    ) as raised:
        Tracer(os.getpid()).start()
    assert len(str(raised.value).splitlines()) == 1


def test_what_shows_only_in_the_attempt_is_found_by_it(kernel: Path) -> None:
    fake_program(kernel, "bpftrace", "echo 'ERROR: create map: Operation not permitted' >&2; exit 1")
    assert trace.why_not() is None
    assert "the kernel forbids it here" in (trace.why_not_after_trying() or "")


def test_attempt_that_succeeds_leaves_nothing_to_say(kernel: Path) -> None:
    fake_program(kernel, "bpftrace", 'echo \'{"type": "printf", "data": "ready"}\'')
    assert trace.why_not_after_trying() is None
