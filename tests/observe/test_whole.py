"""Whole lines on a disk that is full for a while: none is cut, none is glued to another, and what was lost is said."""

import json
import os
import random
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.client import Client, Refused
from tests.support.server import serve_command
from tests.support.uploads import make_root

from snow_owl_tftp.config.schema import LoggingSettings
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.log import LogFile, make_logger
from snow_owl_tftp.observe.whole import WholeLines


class Disk:
    """What has room for so many bytes; -1: for any."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.room_bytes = -1

    def write(self, fd: int, data: bytes) -> int:
        taken = data if self.room_bytes < 0 else data[: self.room_bytes]
        if taken:
            os.write(fd, taken)
        if self.room_bytes >= 0:
            self.room_bytes -= len(taken)
        return len(taken)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "lines")
    yield disk
    os.close(disk.fd)


def lines_of(path: Path) -> list[str]:
    text = path.read_text()
    assert text.endswith("\n") or not text
    return text.splitlines()


def make(disk: Disk) -> WholeLines:
    whole = WholeLines(disk.write)
    whole.tell = lambda count: b"lost %d\n" % count
    return whole


@pytest.mark.parametrize("room_bytes", range(25))
def test_wherever_the_disk_is_full_no_line_is_cut_or_glued(disk: Disk, tmp_path: Path, room_bytes: int) -> None:
    whole = make(disk)
    disk.room_bytes = room_bytes
    whole.write(disk.fd, [b"line 1\n", b"line 2\n", b"line 3\n"])
    whole.write(disk.fd, [b"line 4\n"])
    disk.room_bytes = -1
    whole.write(disk.fd, [b"line 5\n"])
    begun = min(-(-room_bytes // 7), 3 if room_bytes <= 21 else 4)
    expected = [f"line {n}" for n in range(1, begun + 1)]
    assert lines_of(tmp_path / "lines") == [*expected, *([f"lost {4 - begun}"] if begun < 4 else []), "line 5"]
    assert whole.lost_total == 4 - begun


def test_at_random_every_line_is_there_or_counted(disk: Disk, tmp_path: Path) -> None:
    rng = random.Random(5)
    whole = make(disk)
    for number in range(3000):
        disk.room_bytes = rng.choice([-1, 0, rng.randrange(60)])
        whole.write(disk.fd, [b"line %d %s\n" % (number, b"x" * rng.randrange(40))])
    disk.room_bytes = -1
    whole.write(disk.fd, [b"line 3000 \n"])
    lines = lines_of(tmp_path / "lines")
    there = [line for line in lines if line.startswith("line ")]
    told = [int(line.removeprefix("lost ")) for line in lines if line.startswith("lost ")]
    assert len(there) + len(told) == len(lines)
    assert sum(told) == whole.lost_total == 3001 - len(there)
    numbers = [int(line.split()[1]) for line in there]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("left", [b"", b"li", b"line 1\nli", b"somebody else's\n"])
def test_rest_of_a_line_is_not_written_behind_what_somebody_did_to_the_file(
    disk: Disk, tmp_path: Path, left: bytes
) -> None:
    """Emptied or shortened, as on a full disk somebody does; or written to by another process."""
    whole = make(disk)
    disk.room_bytes = 11
    whole.write(disk.fd, [b"line 1\n", b"line 2\n"])
    os.ftruncate(disk.fd, 0)
    os.write(disk.fd, left)
    disk.room_bytes = -1
    whole.write(disk.fd, [b"line 3\n"])
    assert (tmp_path / "lines").read_bytes() == left + (b"\n" if left.endswith(b"li") else b"") + b"lost 1\nline 3\n"


def test_line_that_another_process_left_cut_is_ended_first(disk: Disk, tmp_path: Path) -> None:
    os.write(disk.fd, b"line 1\nli")
    whole = make(disk)
    whole.begin(disk.fd)
    disk.room_bytes = 0
    whole.write(disk.fd, [b"line 2\n"])
    disk.room_bytes = -1
    whole.write(disk.fd, [b"line 3\n"])
    assert lines_of(tmp_path / "lines") == ["line 1", "li", "lost 1", "line 3"]


# ---- a real disk


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB, for one directory."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("CANNOT MOUNT a tmpfs: what a log on a full disk says is NOT tested on this machine")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_on_a_disk_that_was_full_says_how_many_lines_were_lost(full_disk: Path, log_format: str) -> None:
    ballast = full_disk / "ballast"
    file = LogFile(str(full_disk / "log"))
    log = make_logger(LoggingSettings(format=log_format), file)
    ballast.write_bytes(bytes(40_000))
    for number in range(500):
        log.info("line", number=number, padding="x" * 300)
    lost = file.lost_lines_total
    assert 0 < lost < 500
    ballast.unlink()
    log.info("flows again")
    file.close()
    lines = lines_of(full_disk / "log")
    assert len(lines) == 500 - lost + 2
    assert "flows again" in lines[-1]
    if log_format == "json":
        assert json.loads(lines[-2])["count"] == lost
        assert [json.loads(line)["number"] for line in lines[:-2]] == list(range(500 - lost))
    else:
        assert lines[-2].endswith(f"count={lost}")
        assert all(line.endswith("x") for line in lines[:-2])


def test_audit_file_on_a_disk_that_was_full_says_how_many_events_were_lost(full_disk: Path) -> None:
    ballast = full_disk / "ballast"
    audit = AuditLog(str(full_disk / "audit"))
    ballast.write_bytes(bytes(40_000))
    for number in range(500):
        audit.protocol_violation("192.0.2.1:1", reason=f"{number}" + "x" * 300)
        if number % 7 == 0:
            audit.flush()
    audit.flush()
    lost = audit.lost_events_total
    assert 0 < lost < 500
    ballast.unlink()
    audit.protocol_violation("192.0.2.1:1", reason="flows again")
    audit.close()
    events = [json.loads(line) for line in lines_of(full_disk / "audit")]
    assert len(events) == 500 - lost + 2
    assert (events[-2]["event_type"], events[-2]["count"]) == ("events_lost", lost)


@pytest.mark.parametrize("audit_file", ["audit", "log"])
def test_server_whose_log_and_audit_disk_was_full_answers_all_the_while(
    full_disk: Path, tmp_path: Path, audit_file: str
) -> None:
    root = make_root(tmp_path)
    (root / "file").write_bytes(b"content")
    config = tmp_path / "server.toml"
    config.write_text(
        f'[logging]\nfile = "{full_disk}/log"\nformat = "json"\n'
        f'audit_enabled = true\naudit_file = "{full_disk}/{audit_file}"\n'
    )
    ballast = full_disk / "ballast"
    with serve_command(root, "--config", str(config)) as server, Client(server.address) as client:
        ballast.write_bytes(bytes(48_000))
        for number in range(300):
            with pytest.raises(Refused):
                client.get(f"absent-{number}-{'x' * 200}")
        assert client.get("file").payload == b"content"
        ballast.unlink()
        assert client.get("file").payload == b"content"
    for name in {"log", audit_file}:
        entries = [json.loads(line) for line in lines_of(full_disk / name)]
        kinds = [entry.get("event_type", entry.get("event")) for entry in entries]
        assert ("log lines were lost" if name == "log" else "events_lost") in kinds, kinds[-5:]


def test_line_that_hits_a_limit_of_the_files_size_is_whole_when_the_limit_is_lifted(tmp_path: Path) -> None:
    """Where nothing can be mounted: RLIMIT_FSIZE, with its signal ignored, cuts a write as a full disk does."""
    code = """
        import resource, signal, sys
        from snow_owl_tftp.config.schema import LoggingSettings
        from snow_owl_tftp.observe.log import LogFile, make_logger

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        file = LogFile(sys.argv[1])
        log = make_logger(LoggingSettings(), file)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        for number in range(50):
            log.info("line", number=number, padding="x" * 70)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        log.info("flows again")
        print(file.lost_lines_total)
        file.close()
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "log")]
    lost = int(subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout)
    lines = lines_of(tmp_path / "log")
    assert len(lines) == 50 - lost + 2
    assert lines[-2].endswith(f"count={lost}")
    assert all(line.endswith("x" * 70) for line in lines[:-2])
