"""`snow-owl-tftp trace` as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.tracing import needs_trace, tracing  # noqa: F401 - a fixture is used by its name

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
