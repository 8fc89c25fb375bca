"""`snow-owl-tftp trace` as a user calls it."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.tracing import needs_trace, tracing  # noqa: F401 - a fixture is used by its name

from snow_owl_tftp.cli import main
from snow_owl_tftp.cli import trace as cli_trace
from snow_owl_tftp.observe.trace.counts import TraceCounts

# To itself: a closed port would answer with an ICMP message, which counts as a datagram that left, too.
SENDER = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0)); "
    "s.sendto(b'x', s.getsockname())"
)


def trace(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snow_owl_tftp", "trace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@needs_trace
def test_command_is_counted_from_its_first_call_and_json_ends_with_all_of_it() -> None:
    ran = trace("--json", "--interval", "0.2", "--", sys.executable, "-c", SENDER)
    assert ran.returncode == 0, ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    assert last["final"] is True
    assert last["total"]["calls"]["sendto"]["moved"] == 1
    assert last["total"]["derived"]["send_calls"] == 1
    assert last["total"]["calls"]["read"]["calls"] > 10, "the start of Python reads many files"


@needs_trace
def test_intervals_are_lines_and_the_command_is_ended_with_the_duration(tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    script = f"trap 'echo > {mark}; exit 0' TERM; while :; do sleep 0.05; done"
    ran = trace("--json", "--interval", "0.1", "--duration", "0.6", "--", "/bin/sh", "-c", script)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) >= 4
    assert mark.exists()


@needs_trace
def test_table_shows_the_calls() -> None:
    ran = trace("--", sys.executable, "-c", SENDER)
    assert ran.returncode == 0, ran.stderr
    assert "sendto" in ran.stdout
    assert "blocks 1" in ran.stdout


@needs_trace
def test_unknown_pid_is_one_line_and_status_2() -> None:
    ran = trace("--pid", "4194304")
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert "no process has the PID" in ran.stderr


@pytest.mark.parametrize("arguments", [(), ("--pid", "1", "--unit", "x"), ("--pid", "1", "--", "true")])
def test_exactly_one_process_is_named(arguments: tuple[str, ...]) -> None:
    ran = trace(*arguments)
    assert ran.returncode == 2
    assert "name one process" in ran.stderr


# ---- what becomes of the command: no eBPF needed


class NoTracer:
    """Counts nothing; ends with the process, as the real one does."""

    def __init__(self, pid: int, **named: Any) -> None:
        self.fd = os.pidfd_open(pid)

    def __enter__(self) -> "NoTracer":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.fd)

    def follow(self, duration_s: float | None) -> Iterator[TraceCounts]:
        select.select([self.fd], [], [], duration_s)
        yield from ()

    def stop(self) -> TraceCounts:
        return TraceCounts()


@pytest.fixture
def no_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_trace, "Tracer", NoTracer)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of what cannot be started."""
    (tmp_path / "text").write_text("no program")
    for name, text in {"unknown-interpreter": "#!/nonexistent\n", "garbage": "\0\1\2"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("missing", "No such file or directory"),
        ("text", "Permission denied"),
        ("folder", "Permission denied"),
        ("unknown-interpreter", "No such file or directory"),
        ("garbage", "Exec format error"),
    ],
)
@pytest.mark.parametrize("shown", [(), ("--json",)])
def test_command_that_cannot_be_started_is_one_line_and_status_2(
    no_tracer: None,
    programs: Path,
    program: str,
    reason: str,
    shown: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trace", *shown, "--", f"{programs}/{program}", "argument"]) == 2
    told = capsys.readouterr()
    assert told.err == (
        f"snow-owl-tftp: trace: {programs}/{program}: cannot be started: {reason}; name a program, or its path\n"
    )
    assert told.out == ""


def test_name_that_is_nowhere_on_the_path_is_one_line(no_tracer: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--", "no-such-program-anywhere"]) == 2
    assert "no-such-program-anywhere: cannot be started: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("exit 127", 127), ("kill -TERM $$", 143)]
)
def test_command_that_ends_by_itself_lends_its_status(no_tracer: None, script: str, status: int) -> None:
    assert main(["trace", "--json", "--", "/bin/sh", "-c", script]) == status


def test_command_that_is_ended_with_the_duration_is_no_failure(no_tracer: None) -> None:
    assert main(["trace", "--json", "--duration", "0.05", "--", "sleep", "60"]) == 0


def test_command_begins_as_from_a_shell(no_tracer: None, tmp_path: Path) -> None:
    """Python ignores SIGPIPE for itself: `yes | head` in the command would never end."""
    told = tmp_path / "told"
    script = f"grep SigIgn /proc/self/status > {told}; ls /proc/self/fd > {told}.fds"
    with contextlib.ExitStack() as closing:
        # What the test's own process ignores is inherited and none of the command's business.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            closing.callback(signal.signal, number, signal.signal(number, signal.SIG_DFL))
        assert main(["trace", "--json", "--", "/bin/sh", "-c", script]) == 0
    assert int(told.read_text().split()[1], 16) & (1 << signal.SIGPIPE - 1) == 0
    assert len((tmp_path / "told.fds").read_text().split()) <= 4, "three, and the folder that is listed"
