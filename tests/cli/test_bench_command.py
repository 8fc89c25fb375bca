"""`snow-owl-tftp bench` as a user calls it, small."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.bench.runs import Bench
from snow_owl_tftp.bench.servers import KINDS, installed_peers
from snow_owl_tftp.cli import bench as cli_bench
from snow_owl_tftp.cli import bench_steps, main

own_steps = cli_bench.steps_of_flags


def bench(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snow_owl_tftp", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False, env=env)


TINY = ("--clients", "3", "--transfers", "3", "--file-size", "3KiB", "--rounds", "1")


def called(output: Path, *arguments: str, **patched: Any) -> int:
    """In this process, so that what must be different can be made so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_bench, "why_not_after_trying", lambda: "a test")
        for name, value in patched.items():
            patch.setattr(cli_bench, name, value)
        return main(["bench", *arguments, "--output", str(output)])


def runs(output: Path) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = json.loads((output / "results.json").read_text())["runs"]
    return written


def test_wrong_byte_is_status_1_and_no_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Bench._content

    def spoilt(self: Bench, size_bytes: int) -> Path:
        served = real(self, size_bytes)
        expected = self._folder / served.name
        expected.write_bytes(served.read_bytes()[:-1] + b"?")
        return expected

    monkeypatch.setattr(Bench, "_content", spoilt)
    assert called(tmp_path, "--servers", "ours", "--no-sweeps", *TINY) == 1
    assert all(run["blocks_per_s"] is None and not run["is_valid"] for run in runs(tmp_path))
    said = (tmp_path / "report.md").read_text()
    assert said.count("**no figure**: the first transfer failed: CHANGED: content differs") == 3
    told = capsys.readouterr().err
    for name in ("ours", "ours, no GSO", "ours, no batching"):
        assert told.count(f"bench: {name}: no figure: the first transfer failed: CHANGED: content differs") == 1


def test_where_tracing_is_forbidden_it_says_so_and_measures_the_rest(tmp_path: Path) -> None:
    (tmp_path / "bpftrace").write_text("#!/bin/sh\necho 'ERROR: create map: Operation not permitted' >&2\nexit 1\n")
    (tmp_path / "bpftrace").chmod(0o755)
    ran = bench(
        *("--servers", "ours", "--no-sweeps", *TINY, "--output", str(tmp_path / "out")),
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stderr.splitlines() if "System calls are not counted: trace: " in line]
    assert "System calls are not counted: trace: " in (tmp_path / "out/report.md").read_text()
    assert all(run["is_valid"] and not run["is_traced"] for run in runs(tmp_path / "out"))


def test_folder_that_cannot_be_written_is_found_before_the_first_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file/below", Path("/proc")):
        ran = bench("--servers", "ours", "--no-sweeps", *TINY, "--output", str(output))
        assert ran.returncode == 2
        assert f"bench: --output {output}: " in ran.stderr
        assert len(ran.stderr.splitlines()) == 1


def test_servers_side_by_side_behind_a_bad_network(tmp_path: Path) -> None:
    peers = installed_peers()
    peer = next((name for name, problem in peers.items() if problem is None), None)
    if peer is None:
        pytest.skip(f"NO OTHER SERVER can be started here: {peers or 'none is installed (make peers)'}")
    network = ("--rtt-ms", "2", "--loss", "1", "--seed", "4", "--windowsize", "4")
    assert called(tmp_path, "--servers", f"ours,{peer}", "--no-sweeps", *network, *TINY) == 0
    assert {run["target"] for run in runs(tmp_path)} == {"ours", "ours, no GSO", "ours, no batching", peer}
    assert all(run["relay"]["forwarded"] > 0 for run in runs(tmp_path))
    said = (tmp_path / "report.md").read_text()
    assert "windowsize 4, RTT 2 ms, loss 1 %" in said
    assert f"--servers ours,{peer}" in said
    assert "--rtt-ms 2 --loss 1" in said
    assert "| ours | 512 B × 4 |" in said


def test_servers_that_only_root_can_start_are_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tftpd-hpa", "dnsmasq"):
        monkeypatch.setitem(KINDS, name, replace(KINDS[name], find=lambda: "/bin/false"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert called(tmp_path / "named", "--servers", "ours,dnsmasq", "--no-sweeps", *TINY) == 2
    assert "bench: dnsmasq needs root; leave it out, or run bench with sudo" in capsys.readouterr().err
    assert called(tmp_path / "all", "--no-sweeps", *TINY, steps_of_flags=ours_alone) == 0
    told = capsys.readouterr().err
    for name in ("tftpd-hpa", "dnsmasq"):
        assert f"bench: {name} is left out: it needs root." in told
        assert f"{name} is left out: it needs root." in (tmp_path / "all/report.md").read_text()


def ours_alone(*arguments: Any, **named: Any) -> list[Any]:
    """Whatever else is installed here."""
    steps = own_steps(*arguments, **named)
    assert {step.target.name for step in steps}.isdisjoint({"tftpd-hpa", "atftpd", "dnsmasq"})
    return [step for step in steps if step.target.server == "ours"]


def test_one_sweep_alone_follows_network_and_rounds(tmp_path: Path) -> None:
    asked = ("--servers", "ours", "--sweep", "linger", "--rtt-ms", "1", "--windowsize", "4")
    assert called(tmp_path, *asked, *TINY[:-1], "2", steps_of_flags=first_lingers) == 0
    assert {run["section"] for run in runs(tmp_path)} == {"linger"}
    assert [run["target"] for run in runs(tmp_path)] == ["no batching", "always, linger 0 µs"] * 2
    assert all(run["workload"]["network"]["rtt_ms"] == 1 for run in runs(tmp_path))


def first_lingers(*arguments: Any, **named: Any) -> list[Any]:
    """The first two targets of each round: the law of the steps is tested where they are made."""
    steps = own_steps(*arguments, **named)
    return [step for step in steps if step.target.name in ("no batching", "always, linger 0 µs")]


def test_profile_takes_one_size(tmp_path: Path) -> None:
    made = cli_bench.steps_of_profile
    arguments = ("--profile", "recvmmsg", "--file-size", "4KiB", "--rounds", "1")
    assert called(tmp_path, *arguments, steps_of_profile=lambda *a, **n: made(*a, **n)[1:2]) == 0
    assert [run["section"] for run in runs(tmp_path)] == ["recvmmsg 4 KiB"]


def test_linger_is_not_swept_without_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_steps, "check_target", lambda name: None)
    assert called(tmp_path / "out", "--servers", "dnsmasq", "--sweep", "linger", *TINY) == 2
    assert not (tmp_path / "out").exists()


def test_interrupted_benchmark_writes_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed, made = Bench.timed, []

    def interrupted(self: Bench, *arguments: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return timed(self, *arguments)

    monkeypatch.setattr(Bench, "timed", interrupted)
    assert called(tmp_path, "--servers", "ours", "--no-sweeps", *TINY) == 130
    assert [run["is_valid"] for run in runs(tmp_path)] == [True]
    assert "Interrupted: 1 of 3 runs were made." in (tmp_path / "report.md").read_text()


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    terminal, far_end = pty.openpty()
    arguments = ["--servers", "ours", "--no-sweeps", *TINY, "--output", str(tmp_path)]
    ran = subprocess.Popen(
        [sys.executable, "-m", "snow_owl_tftp", "bench", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=far_end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(far_end)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
        while got := os.read(terminal, 65536):
            shown += got
    os.close(terminal)
    assert ran.wait() == 0, shown
    assert b"main: ours, 3 clients" in shown
    assert "━".encode() in shown
    assert b"100 %" in shown


def test_report_results_and_progress(tmp_path: Path) -> None:
    ran = bench(
        *("--servers", "ours", "--clients", "5", "--transfers", "10", "--file-size", "10KiB"),
        *("--rounds", "1", "--no-sweeps", "--output", str(tmp_path / "out")),
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(tmp_path / "out/report.md")
    said = (tmp_path / "out/report.md").read_text()
    for name in ("ours", "ours, no GSO", "ours, no batching"):
        assert f"| {name} | " in said
    assert "no figure" not in said
    written = json.loads((tmp_path / "out/results.json").read_text())
    timed = [run for run in written["runs"] if run["trace"] is None]
    assert len(timed) == 3
    assert all(run["load"]["blocks"] == 10 * 21 and run["blocks_per_s"] > 0 for run in timed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--servers", "iis"), "unknown server iis; known are ours"),
        (("--file-size", "ten"), "expected a size such as 102400, 100KiB or 10MiB"),
        (("--blksize", "7"), "8<=x<=65464"),
        (("--loss", "90"), "0<=x<=50"),
        (("--profile", "other"), "recvmmsg"),
        (("--profile", "recvmmsg", "--clients", "5", "--loss", "1"), "--profile sets --clients, --loss itself"),
        (("--profile", "recvmmsg", "--no-sweeps"), "--profile sets --sweeps itself"),
        (("--sweep", "blksize"), "'clients', 'linger'"),
    ],
)
def test_wrong_flag_is_one_line_and_status_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = bench(*arguments, "--output", str(tmp_path / "out"))
    assert ran.returncode == 2
    assert said in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
