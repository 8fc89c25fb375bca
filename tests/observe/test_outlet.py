"""What does not take lines holds up nobody who writes them: they are kept up to a bound, lost beyond, and counted."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server import wait_for

from snow_owl_tftp.observe import outlet as module
from snow_owl_tftp.observe.outlet import Outlet

LATE_S = 5.0
"""What a busy machine may add; a write that hangs takes for ever."""


class SickDisk:
    """A way to write that hangs when it is told to."""

    def __init__(self) -> None:
        self.well = threading.Event()
        self.well.set()
        self.is_stuck = False

    def write(self, fd: int, data: bytes) -> int:
        if not self.well.is_set():
            self.is_stuck = True
            self.well.wait(60)
            self.is_stuck = False
        return os.write(fd, data)


@pytest.fixture
def disk() -> Iterator[SickDisk]:
    disk = SickDisk()
    yield disk
    disk.well.set()


@pytest.fixture
def outlet(disk: SickDisk, tmp_path: Path) -> Iterator[Outlet]:
    outlet = Outlet(str(tmp_path / "lines"), "logging.file", disk.write)
    outlet.tell_losses_by(lambda count: b"lost %d\n" % count)
    outlet.begin(threading.Thread.start)
    yield outlet
    disk.well.set()
    outlet.close()


def lines_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "lines").read_text().splitlines()


def test_what_was_told_is_in_the_file_when_write_returns(outlet: Outlet, tmp_path: Path) -> None:
    on_time = 0
    for number in range(200):
        outlet.write([b"line %d\n" % number])
        on_time += len(lines_of(tmp_path)) == number + 1
    outlet.close()
    assert lines_of(tmp_path) == [f"line {number}" for number in range(200)]
    assert on_time > 100, "all but those of moments when the machine had something else to do"


def test_file_that_hangs_holds_up_nobody_and_lines_come_in_order(
    outlet: Outlet, disk: SickDisk, tmp_path: Path
) -> None:
    outlet.write([b"line 0\n"])
    disk.well.clear()
    began = time.monotonic()
    for number in range(1, 1001):
        outlet.write([b"line %d\n" % number])
    assert time.monotonic() - began < LATE_S
    wait_for(lambda: disk.is_stuck, "a write that hangs")
    assert lines_of(tmp_path) == ["line 0"]
    wait_for(lambda: outlet.hangs, "it to be known")
    disk.well.set()
    wait_for(lambda: len(lines_of(tmp_path)) == 1001, "all lines")
    assert lines_of(tmp_path) == [f"line {number}" for number in range(1001)]
    assert outlet.lost_total == 0
    assert not outlet.hangs


def test_lines_beyond_a_bound_are_lost_counted_and_told(
    outlet: Outlet, disk: SickDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_QUEUED_BYTES", 100)
    disk.well.clear()
    outlet.write([b"line 0\n"])
    wait_for(lambda: disk.is_stuck, "a write that hangs")
    told: list[int] = []
    for number in range(1, 101):
        outlet.write([b"line %d\n" % number], told.append)
    assert outlet.lost_total == sum(told) == 87, "13 lines are less than 100 bytes"
    disk.well.set()
    wait_for(lambda: len(lines_of(tmp_path)) == 14, "what was kept")
    outlet.write([b"line 101\n"])
    outlet.close()
    assert lines_of(tmp_path) == [*(f"line {number}" for number in range(14)), "lost 87", "line 101"]
    assert outlet.lost_total == 87


def test_one_that_hangs_costs_its_writers_a_hundredth_of_their_time(outlet: Outlet, disk: SickDisk) -> None:
    disk.well.clear()
    waited = [0.0]
    for _ in range(100):
        began = time.thread_time(), time.monotonic()
        outlet.write([b"line\n"])
        waited.append(time.monotonic() - began[1])
    assert sorted(waited)[90] < module._PROMPT_S, "only the first waited, in vain"


def test_end_waits_for_what_hangs_for_a_moment_and_then_for_nobody(
    outlet: Outlet, disk: SickDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END_S", 0.1)
    disk.well.clear()
    outlet.write([b"line\n"])
    wait_for(lambda: disk.is_stuck, "a write that hangs")
    began = time.monotonic()
    outlet.close()
    assert time.monotonic() - began < LATE_S
    assert outlet.hangs
    outlet.write([b"too late\n"])
    disk.well.set()
    wait_for(lambda: not outlet.hangs, "the thread to end")
    assert outlet.fd == -1


def test_reopening_is_done_by_the_thread_too(outlet: Outlet, disk: SickDisk, tmp_path: Path) -> None:
    outlet.write([b"before\n"])
    (tmp_path / "lines").rename(tmp_path / "lines.1")
    disk.well.clear()
    outlet.write([b"hangs\n"])
    wait_for(lambda: disk.is_stuck, "a write that hangs")
    began = time.monotonic()
    outlet.reopen()
    assert time.monotonic() - began < LATE_S
    disk.well.set()
    outlet.close()
    assert (tmp_path / "lines.1").read_text() == "before\n"
    assert lines_of(tmp_path) == ["hangs"]


def test_trouble_may_be_told_in_the_outlet_itself(
    outlet: Outlet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet.on_trouble = lambda reason: outlet.write([f"trouble: {reason}\n".encode()])
    (tmp_path / "lines").rename(tmp_path / "lines.1")
    (tmp_path / "lines").mkdir()
    outlet.write([b"line\n"])
    outlet.close()
    assert (tmp_path / "lines.1").read_text() == "line\ntrouble: Is a directory\n"


def test_without_a_thread_to_be_had_lines_are_written_by_who_tells_them(disk: SickDisk, tmp_path: Path) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    outlet = Outlet(str(tmp_path / "lines"), "logging.file", disk.write)
    with pytest.raises(RuntimeError):
        outlet.begin(refuse)
    outlet.write([b"line\n"])
    outlet.close()
    assert lines_of(tmp_path) == ["line"]
