"""Log lines: one per event, in both formats, and none that a peer could forge."""

import errno
import json
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from snow_owl_tftp.config.schema import LoggingSettings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.log import LogFile, make_logger

FORGED = "x\n2026-01-01T00:00:00.000Z ERROR   forged line"
Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]


def logged(tmp_path: Path, event: str, log_format: Format = "text", level: Level = "info", **fields: object) -> str:
    path = tmp_path / "log"
    file = LogFile(str(path))
    make_logger(LoggingSettings(format=log_format, level=level), file).info(event, **fields)
    file.close()
    return path.read_text()


def test_text_line_is_for_people(tmp_path: Path) -> None:
    line = logged(tmp_path, "transfer completed", peer="192.0.2.7:2070", blocks=12, name="two words")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    transfer completed       "
        r'peer=192\.0\.2\.7:2070 blocks=12 name="two words"\n',
        line,
    )


def test_text_line_without_fields_has_no_trailing_spaces(tmp_path: Path) -> None:
    assert logged(tmp_path, "ready").endswith("INFO    ready\n")


def test_json_line_is_one_object(tmp_path: Path) -> None:
    event = json.loads(logged(tmp_path, "transfer completed", "json", peer="[::1]:9", blocks=12))
    assert list(event) == ["timestamp", "level", "event", "peer", "blocks"]
    assert (event["level"], event["event"], event["blocks"]) == ("info", "transfer completed", 12)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("line_break", ["\n", "\r", "\v", "\x85", "\u2028", "\u2029"])
def test_line_break_in_a_name_does_not_forge_a_line(tmp_path: Path, log_format: Format, line_break: str) -> None:
    name = FORGED.replace("\n", line_break)
    text = logged(tmp_path, "read request", log_format, name=name, path=name.encode())
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_control_sequence_in_a_name_does_not_reach_the_terminal(tmp_path: Path, log_format: Format) -> None:
    text = logged(tmp_path, "read request", log_format, name="\x1b[2J\x9b2J\x08\x7f\u202e")
    assert text.rstrip("\n").isprintable()


@pytest.mark.parametrize("name", ['x" code=0 y="', "x code=0", "x=1", "x\\", ""])
def test_name_cannot_forge_a_second_field(tmp_path: Path, name: str) -> None:
    text = logged(tmp_path, "read request", name=name)
    quoted = '"' + name.replace("\\", r"\\").replace('"', r"\"") + '"'
    assert text.endswith(f" name={quoted}\n")


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_lets_through_what_is_as_grave(tmp_path: Path, level: Level, written: list[str]) -> None:
    file = LogFile(str(tmp_path / "log"))
    log = make_logger(LoggingSettings(format="json", level=level), file)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("event")
    file.close()
    assert [json.loads(line)["level"] for line in (tmp_path / "log").read_text().splitlines()] == written


class NeverShown:
    def __str__(self) -> str:
        raise AssertionError("a filtered line was rendered")

    __repr__ = __str__


def test_filtered_line_is_not_even_rendered(tmp_path: Path) -> None:
    assert logged(tmp_path, "event", level="warning", value=NeverShown()) == ""


def test_bound_fields_come_with_every_line(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "log"))
    log = make_logger(LoggingSettings(), file).bind(peer="192.0.2.7:2070")
    log.info("one")
    log.warning("two")
    file.close()
    assert (tmp_path / "log").read_text().count("peer=192.0.2.7:2070") == 2


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_traceback_stays_within_its_line(tmp_path: Path, log_format: Format) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        text = logged(tmp_path, "internal error", log_format, exc_info=True)
    assert len(text.splitlines()) == 1
    assert "ValueError" in text


def test_file_is_appended_to_and_readable_by_its_group_only(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    assert logged(tmp_path, "ready").startswith("before\n")
    file = LogFile(str(tmp_path / "new"))
    file.close()
    assert (tmp_path / "new").stat().st_mode & 0o137 == 0


def test_file_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^logging\.file: .*missing/log: No such file"):
        LogFile(str(tmp_path / "missing/log"))


def test_standard_error_is_used_without_a_file_and_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    file = LogFile()
    make_logger(LoggingSettings(), file).info("ready")
    file.close()
    os.fstat(2)
    assert capfd.readouterr().err.endswith("ready\n")


def test_full_disk_costs_lines_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    file = LogFile(str(tmp_path / "log"))
    log = make_logger(LoggingSettings(), file)
    monkeypatch.setattr(os, "write", fail)
    log.info("one")
    log.info("two")
    monkeypatch.undo()
    log.info("three")
    file.close()
    assert file.lost_lines_total == 2
    assert (tmp_path / "log").read_text().endswith("three\n")


@pytest.mark.parametrize("length", [10, 10_000])
def test_stuck_reader_of_a_pipe_costs_lines_and_does_not_block(tmp_path: Path, length: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    file = LogFile(str(tmp_path / "fifo"))
    log = make_logger(LoggingSettings(), file)

    def write_much() -> None:
        for _ in range(3000):
            log.info("x" * length)

    writing = threading.Thread(target=write_much, daemon=True)
    writing.start()
    writing.join(20)
    assert not writing.is_alive(), "it waits for the reader"
    assert 0 < file.lost_lines_total < 3000
    while len(os.read(reader, 1 << 16)) == 1 << 16:
        pass
    log.info("heard again")
    assert os.read(reader, 1 << 16).endswith(b"heard again\n")
    file.close()
    os.close(reader)


def test_line_longer_than_a_pipe_takes_at_once_is_whole_in_a_file(tmp_path: Path) -> None:
    assert logged(tmp_path, "x" * 20_000).endswith("x" * 20_000 + "\n")


def line_on_a_terminal() -> str:
    leader, follower = os.openpty()
    file = LogFile(os.ttyname(follower))
    make_logger(LoggingSettings(), file).error("ready", name="\x1b[2J")
    text = os.read(leader, 1000).decode()
    for fd in (leader, follower):
        os.close(fd)
    file.close()
    return text


def test_colours_are_for_terminals_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert " \x1b[31mERROR  \x1b[0m ready " in line_on_a_terminal()
    assert "\x1b" not in logged(tmp_path, "ready")


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in line_on_a_terminal()


def in_new_interpreter(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_logging_needs_no_rich_and_leaves_it_importable() -> None:
    code = (
        "import sys\n"
        "from snow_owl_tftp.config.schema import LoggingSettings\n"
        "from snow_owl_tftp.observe.log import LogFile, make_logger\n"
        "make_logger(LoggingSettings(), LogFile('/dev/null'))\n"
        "print('rich' in sys.modules)\n"
        "import rich\n"
        "print(rich.__name__)\n"
    )
    assert in_new_interpreter(code).split() == ["False", "rich"]


def test_module_alone_does_not_import_structlog() -> None:
    assert in_new_interpreter("import sys, snow_owl_tftp.observe.log; print('structlog' in sys.modules)") == "False"


def test_structlog_of_an_embedding_program_stays_as_it_was(tmp_path: Path) -> None:
    import structlog

    before = structlog.get_config()
    logged(tmp_path, "ready", "json", "debug")
    assert structlog.get_config() == before
    assert not structlog.is_configured()


class FullDisk:
    """os.write to a file whose disk has room for so many bytes, and later for more."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes
        self._real = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.room_bytes:
            raise OSError(errno.ENOSPC, "no room")
        written = self._real(fd, data[: self.room_bytes])
        self.room_bytes -= written
        return written


def test_line_that_a_full_disk_cut_off_is_not_glued_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LogFile(str(tmp_path / "log"))
    disk = FullDisk(8)
    monkeypatch.setattr(os, "write", disk)
    for line in (b"first line\n", b"second\n", b"third\n"):
        file.write(line)
    assert (tmp_path / "log").read_bytes() == b"first li"
    assert file.lost_lines_total == 2
    disk.room_bytes = 5
    file.write(b"fourth\n")
    disk.room_bytes = 1000
    file.write(b"fifth\n")
    assert (tmp_path / "log").read_bytes() == b"first line\nfourth\nfifth\n"
    assert file.lost_lines_total == 2
    file.close()


def test_rest_of_a_line_does_not_go_to_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(str(tmp_path / "log"))
    disk = FullDisk(3)
    monkeypatch.setattr(os, "write", disk)
    file.write(b"first line\n")
    (tmp_path / "log").rename(tmp_path / "log.1")
    disk.room_bytes = 1000
    file.write(b"second\n")
    assert (tmp_path / "log").read_bytes() == b"second\n"
    file.close()


# ---- lines that are held


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[LogFile, Path]]:
    path = tmp_path / "log"
    log_file = LogFile(str(path))
    yield log_file, path
    log_file.close()


def numbers(path: Path) -> list[int]:
    return [int(line.split()[-1]) for line in path.read_text().splitlines()]


def test_held_lines_are_written_at_once_when_they_are_released(held: tuple[LogFile, Path]) -> None:
    log_file, path = held
    log_file.hold()
    for number in range(3):
        log_file.inform(b"line %d\n" % number)
    assert path.read_text() == ""
    log_file.release()
    assert numbers(path) == [0, 1, 2]
    log_file.info(b"line 3\n")
    assert numbers(path) == [0, 1, 2, 3], "nothing is held any more"


@pytest.mark.parametrize("how", ["warning", "error", "critical", "close", "write"])
def test_held_lines_come_before_what_is_graver_and_before_the_end(held: tuple[LogFile, Path], how: str) -> None:
    log_file, path = held
    log_file.hold()
    log_file.info(b"line 0\n")
    log_file.debug(b"line 1\n")
    getattr(log_file, how)(*([] if how == "close" else [b"line 2\n"]))
    assert numbers(path) == ([0, 1] if how == "close" else [0, 1, 2])


def test_no_more_is_held_than_a_pipe_takes_whole(held: tuple[LogFile, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    log_file, path = held
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (writes.append(len(data)), write(fd, data))[1])
    log_file.hold()
    for number in range(1000):
        log_file.inform(b"a line of some length that says little %d\n" % number)
    log_file.inform(b"x" * 6000 + b" 1000\n")
    log_file.info(b"line 1001\n")
    log_file.release()
    assert numbers(path) == list(range(1002))
    assert [length for length in writes if length > select.PIPE_BUF] == [6006]
    assert len(writes) < 20


def test_losses_of_held_lines_are_told_and_not_laid_to_who_writes_behind_them(
    held: tuple[LogFile, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_file, _ = held
    told: list[int] = []
    log_file.hold()
    log_file.info(b"line 0\n")
    log_file.info(b"line 1\n")
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: 0)
        log_file.write_lines([b"of another\n"], told.append)
        assert told == [1]
    assert log_file.lost_lines_total == 3
