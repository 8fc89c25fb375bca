"""Whole runs, small ones: servers are started, loaded and ended; a bad network is a bad network."""

import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.server import wait_for
from tests.support.tracing import needs_trace, tracing  # noqa: F401 - a fixture is used by its name

from snow_owl_tftp.bench import cpu, runs
from snow_owl_tftp.bench.cpu import PROCESS_CLOCKS, CpuAccount, end_tree, start
from snow_owl_tftp.bench.runs import Bench
from snow_owl_tftp.bench.servers import KINDS, OURS, has_classical, installed_peers, our_targets
from snow_owl_tftp.bench.settings import BenchTarget, Network, Workload
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.trace.counter import Tracer


@pytest.fixture
def no_control_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container, and for an ordinary user."""
    monkeypatch.setattr(cpu, "_V1", tmp_path / "none")
    monkeypatch.setattr(cpu, "_V2", tmp_path / "none")


SMALL = Workload(clients=10, transfers=40, file_bytes=20_000, limit_s=20)


def test_timed_run_has_speed_latency_and_cpu() -> None:
    with Bench() as bench:
        run = bench.timed(BenchTarget("ours"), SMALL)
    assert run.is_valid, run
    assert run.load["blocks"] == 40 * SMALL.blocks_each
    assert run.blocks_per_s is not None
    assert run.cpu_us_per_block is not None
    assert 0 < run.cpu_us_per_block < 1000


def test_cpu_is_measured_without_control_groups(no_control_groups: None) -> None:
    with Bench() as bench:
        run = bench.timed(BenchTarget("ours"), SMALL)
    assert run.is_valid, run
    assert run.cpu_counted_by == PROCESS_CLOCKS
    assert run.cpu_us_per_block is not None
    assert 0 < run.cpu_us_per_block < 1000


def test_cpu_of_a_server_that_forgets_its_children_is_no_figure(no_control_groups: None, tmp_path: Path) -> None:
    # tftpd-hpa ignores SIGCHLD: what its children used is counted nowhere.
    script = "import signal, time; signal.signal(signal.SIGCHLD, signal.{}); print(1, flush=True); time.sleep(60)"
    for disposition, is_counted in (("SIG_DFL", True), ("SIG_IGN", False)):
        log = tmp_path / disposition
        with CpuAccount("test") as account:
            process = start([sys.executable, "-c", script.format(disposition)], account, core=None, log_path=log)
            try:
                wait_for(log.read_text, "the server")
                assert (account.used_s() is not None) == is_counted
            finally:
                end_tree(process)


@pytest.mark.parametrize("used_s", [None, 1.5])
def test_cpu_that_nothing_tells_is_no_figure(monkeypatch: pytest.MonkeyPatch, used_s: float | None) -> None:
    monkeypatch.setattr(CpuAccount, "used_s", lambda account: used_s)
    with Bench() as bench:
        run = bench.timed(BenchTarget("ours"), SMALL)
    assert run.is_valid, run
    assert (run.server_cpu_s, run.cpu_us_per_block, run.cpu_counted_by) == (None, None, "")


@needs_trace
@pytest.mark.parametrize("target", our_targets(), ids=lambda target: target.name)
def test_traced_run_shows_what_was_configured(target: BenchTarget) -> None:
    with Bench() as bench:
        run = bench.traced(target, SMALL)
    assert run.is_valid, run
    assert run.trace is not None
    calls = run.trace["calls"]
    is_batched = target.batch.get("enable_recvmmsg", True)
    assert ("recvmmsg" in calls) == is_batched
    assert ("sendmmsg" in calls) == is_batched
    # Requests and ACKs are what is received, DATA what is sent; the rest is asyncio's own socket pair.
    received = sum(calls[name]["datagrams"] for name in calls if name.startswith("recv"))
    assert run.load["blocks"] + 40 <= received <= run.load["blocks"] + 60


@needs_trace
@pytest.mark.skipif(not has_classical(), reason="benchmarks/classical.c is not here, or no gcc")
def test_classical_layout_batches_requests_only() -> None:
    with Bench() as bench:
        run = bench.traced(BenchTarget("classical", "classical"), SMALL)
    assert run.is_valid, run
    assert run.trace is not None
    calls = run.trace["calls"]
    assert calls["recvmmsg"]["datagrams"] == 40
    assert calls["recvfrom"]["moved"] == run.load["blocks"]


@pytest.mark.parametrize("name", [name for name in KINDS if name != OURS and not name.startswith("classical")])
def test_installed_peer_is_started_and_serves_every_byte(name: str) -> None:
    if (problem := installed_peers().get(name, "is MISSING (make peers, make peers-all)")) is not None:
        pytest.skip(f"NOT STARTED: {name} {problem}")
    with Bench() as bench:
        run = bench.timed(BenchTarget(name, name), Workload(clients=2, transfers=4, file_bytes=5000, limit_s=20))
    assert run.is_valid, run


def test_server_that_does_not_start_says_why() -> None:
    with Bench() as bench:
        run = bench.timed(BenchTarget("broken", batch={"max_batch_size": 0}), SMALL)
    assert not run.is_valid
    assert "max_batch_size" in run.problem


@pytest.mark.parametrize("taken_again", [1, 3])
def test_port_that_was_taken_meanwhile_is_another_one(monkeypatch: pytest.MonkeyPatch, taken_again: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, Bench() as bench:
        taken.bind(("127.0.0.1", 0))
        ports = [taken.getsockname()[1]] * taken_again
        free_port = runs._free_port
        monkeypatch.setattr(runs, "_free_port", lambda: ports.pop() if ports else free_port())
        run = bench.timed(BenchTarget("ours"), SMALL)
    assert run.is_valid == (taken_again < 3), run
    assert ("in use" in run.problem) == (taken_again == 3)


def test_what_keeps_a_tracer_from_starting_is_the_run_s_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Tracer) -> None:
        raise ConfigError("trace: bpftrace: no such map")

    monkeypatch.setattr(Tracer, "start", refuse)
    with Bench() as bench:
        run = bench.traced(BenchTarget("ours"), SMALL)
    assert run.problem == "trace: bpftrace: no such map"
    assert run.is_traced


def test_problem_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise OSError(28, "No space left on device", str(self))

    with Bench() as bench, monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        run = bench.timed(BenchTarget("ours"), SMALL)
    assert run.problem == "[Errno 28] No space left on device: '…/part'"


def test_content_is_the_same_for_every_size_and_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snow_owl_tftp.bench.runs._CHUNK_BYTES", 1000)
    with Bench() as bench:
        assert bench._content(2500).stat().st_size == 2500
        assert bench._content(0).read_bytes() == b""
        assert bench._content(2000).read_bytes() == bench._content(2500).read_bytes()[:2000]


def test_run_is_cut_off_when_its_time_is_over() -> None:
    asked = Workload(clients=4, transfers=None, file_bytes=50_000, stop_after_s=0.5, limit_s=20)
    with Bench() as bench:
        run = bench.timed(BenchTarget("ours"), asked)
    assert run.is_valid, run
    assert run.load["finished"] > 4
    assert run.load["wall_s"] == pytest.approx(0.5, abs=0.3)


def test_one_wrong_byte_leaves_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bench._content

    def spoilt(self: Bench, size_bytes: int) -> Path:
        expected = self._folder / "expected"
        path = real(self, size_bytes)
        content = path.read_bytes()
        expected.mkdir(exist_ok=True)
        (expected / path.name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return expected / path.name

    monkeypatch.setattr(Bench, "_content", spoilt)
    with Bench() as bench:
        run = bench.timed(BenchTarget("ours"), SMALL)
    assert "content differs" in run.problem
    assert run.blocks_per_s is None


def test_unknown_server_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(KINDS, "rs-tftpd", replace(KINDS["rs-tftpd"], find=lambda: shutil.which("tftpd")))
    missing = [name for name, kind in KINDS.items() if kind.find() is None]
    assert "rs-tftpd" in missing
    with Bench() as bench:
        assert bench.timed(BenchTarget("x", "rs-tftpd"), SMALL).problem == "rs-tftpd is not installed"


def test_relay_delays_both_ways() -> None:
    slow = Workload(clients=1, transfers=1, file_bytes=5 * 512, network=Network(rtt_ms=20), limit_s=20)
    with Bench() as bench:
        run = bench.timed(BenchTarget("ours"), slow)
    assert run.is_valid, run
    # RRQ to DATA 1, then an ACK to DATA for each of 2..6.
    assert run.load["p50_s"] >= 6 * 0.020
    assert run.relay is not None
    # The transfer from which the OACK was learnt, and the one: RRQ, 6 DATA, 6 ACKs each. What is learnt is cut off when
    # it takes long, as on a busy machine, but not before there was a block.
    assert 13 + 3 <= run.relay["forwarded"] <= 2 * 13
    assert run.relay["lost"] == 0
    assert run.relay["repeated_by_server"] == 0


def test_relay_loses_by_its_seed_and_every_byte_arrives() -> None:
    lossy = Workload(
        clients=4, transfers=8, file_bytes=40_000, windowsize_blocks=4, network=Network(1, 5, seed=3), limit_s=40
    )
    with Bench() as bench:
        run = bench.timed(BenchTarget("ours"), lossy)
    assert run.is_valid, run
    assert run.relay is not None
    assert run.relay["lost"] > 0
    assert run.relay["repeated_by_server"] > 0
    assert run.load["duplicates_received"] + run.load["client_retransmits"] > 0


def test_cpu_of_children_counts(tmp_path: Path) -> None:
    assert used_by_a_child_s(tmp_path) >= 0.2


def test_cpu_of_children_counts_without_control_groups(no_control_groups: None, tmp_path: Path) -> None:
    # Two ticks less: user and system time of a child that has ended are each rounded down.
    assert used_by_a_child_s(tmp_path) >= 0.18


def used_by_a_child_s(tmp_path: Path) -> float:
    """What an account has of a server whose child used 0.2 s and has ended."""
    burn = "import time; e = time.process_time() + 0.2\nwhile time.process_time() < e: pass"
    script = (
        f"import signal, subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); "
        "print('burnt', flush=True); signal.pause()"
    )
    with CpuAccount("test") as account:
        process = start([sys.executable, "-c", script], account, core=None, log_path=tmp_path / "log")
        wait_for(lambda: b"burnt" in (tmp_path / "log").read_bytes(), "the child")
        used_s = account.used_s()
        end_tree(process)
    assert process.returncode is not None
    assert used_s is not None
    return used_s


def test_children_end_with_their_server(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    script = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid); p.wait()"
    with CpuAccount("test") as account:
        process = start([sys.executable, "-u", "-c", script], account, core=None, log_path=tmp_path / "log")
        pid = int(wait_for(lambda: (tmp_path / "log").read_text().strip(), "the child"))
        end_tree(process)
    assert state_of(pid) in (None, "Z")


def state_of(pid: int) -> str | None:
    """The letter of proc_pid_stat(5), field 3; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None
