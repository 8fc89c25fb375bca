"""Log and audit file under rotation: what was moved away gets no further line, and nothing is lost."""

import json
import os
import threading
from pathlib import Path

import pytest

from snow_owl_tftp.config.schema import LoggingSettings
from snow_owl_tftp.observe.appended import AppendedFile
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.log import LogFile, make_logger


@pytest.fixture
def opened(tmp_path: Path):
    file = AppendedFile(str(tmp_path / "log"), "logging.file", nonblocking=False)
    yield file
    file.close()


def forbid_opening(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Opening fails from now on, also for root; returns the paths that were tried."""
    tried: list[str] = []

    def fail(path: str, *_: object) -> int:
        tried.append(path)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", fail)
    return tried


@pytest.mark.parametrize("is_made_anew", [True, False])
def test_line_after_a_move_goes_to_the_new_file_without_any_signal(tmp_path: Path, is_made_anew: bool) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    file = LogFile(str(path))
    log = make_logger(LoggingSettings(), file)
    log.info("one")
    path.rename(moved)
    if is_made_anew:
        path.touch(0o600)
    log.info("two")
    file.close()
    assert "one" in moved.read_text()
    assert "two" not in moved.read_text()
    assert "two" in path.read_text()
    assert path.stat().st_mode & 0o137 == 0


def test_events_after_a_move_go_to_the_new_file(tmp_path: Path) -> None:
    path, moved = tmp_path / "audit", tmp_path / "audit.1"
    log = AuditLog(str(path))
    log.protocol_violation("192.0.2.1:1", reason="one")
    log.flush()
    path.rename(moved)
    log.protocol_violation("192.0.2.1:1", reason="two")
    log.close()
    assert len(moved.read_text().splitlines()) == len(path.read_text().splitlines()) == 1
    assert "two" in path.read_text()


def test_rest_of_a_cut_line_does_not_open_the_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit"
    log = AuditLog(str(path))
    log.protocol_violation("192.0.2.1:1", reason="one")
    room, write = [10], os.write

    def write_some(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = write(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write_some)
    log.flush()
    monkeypatch.undo()
    path.rename(tmp_path / "audit.1")
    log.protocol_violation("192.0.2.1:1", reason="two")
    log.close()
    told, event = [json.loads(line) for line in path.read_text().splitlines()]
    assert (told["event_type"], told["count"], event["reason"]) == ("events_lost", 1, "two")
    assert log.lost_events_total == 1


def test_reopening_makes_the_file_although_nothing_is_written(tmp_path: Path) -> None:
    log, audit = LogFile(str(tmp_path / "log")), AuditLog(str(tmp_path / "audit"))
    for name in ("log", "audit"):
        (tmp_path / name).unlink()
    log.reopen()
    audit.reopen()
    assert (tmp_path / "log").exists()
    assert (tmp_path / "audit").exists()
    log.close()
    audit.close()


def test_copytruncate_keeps_the_descriptor(opened: AppendedFile, tmp_path: Path) -> None:
    before = opened.identity
    os.write(opened.fd, b"one\n")
    os.truncate(tmp_path / "log", 0)
    assert opened.follow() == ""
    os.write(opened.fd, b"two\n")
    assert (tmp_path / "log").read_text() == "two\n"
    assert opened.identity == before


def test_descriptor_stays_private_and_of_the_same_number(opened: AppendedFile, tmp_path: Path) -> None:
    number, descriptors = opened.fd, len(list(Path("/proc/self/fd").iterdir()))
    (tmp_path / "log").unlink()
    assert opened.follow() == ""
    assert opened.fd == number
    assert not os.get_inheritable(number)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_name_that_cannot_be_opened_keeps_the_old_file_and_is_told_once(
    opened: AppendedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").rename(tmp_path / "log.1")
    tried = forbid_opening(monkeypatch)
    assert opened.follow() == "Permission denied"
    assert opened.follow() == ""
    assert len(tried) == 1
    assert opened.follow(at_once=True) == "Permission denied"
    os.write(opened.fd, b"kept\n")
    monkeypatch.undo()
    assert opened.follow(at_once=True) == ""
    assert (tmp_path / "log.1").read_text() == "kept\n"
    assert (tmp_path / "log").exists()


def test_trouble_may_be_told_in_the_log_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(str(tmp_path / "log"))
    log = make_logger(LoggingSettings(), file)
    file.on_trouble = lambda reason: log.error("trouble", reason=reason)
    (tmp_path / "log").rename(tmp_path / "log.1")
    forbid_opening(monkeypatch)
    done = threading.Thread(target=lambda: [log.info("line") for _ in range(3)], daemon=True)
    done.start()
    done.join(20)
    assert not done.is_alive()
    monkeypatch.undo()
    file.close()
    events = [line.split()[2] for line in (tmp_path / "log.1").read_text().splitlines()]
    assert events == ["line", "trouble", "line", "line"]


def test_fifo_that_nobody_reads_holds_nobody_up_and_keeps_what_fits(opened: AppendedFile, tmp_path: Path) -> None:
    (tmp_path / "log").unlink()
    os.mkfifo(tmp_path / "log")
    assert opened.follow() == ""
    os.write(opened.fd, b"for whoever comes\n")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 100) == b"for whoever comes\n"
    assert os.get_blocking(opened.fd)
    os.close(reader)
