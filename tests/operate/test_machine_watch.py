"""Whose turn it is to be looked at, with files that a test makes slow, sick or busy."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.descriptors import settled_descriptors

from snow_owl_tftp.config.machines import MachinesSettings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate.machines import MachineWatch, gathered, watch
from snow_owl_tftp.operate.machines.files import InventoryFile
from snow_owl_tftp.operate.machines.lease_file import LeaseFile
from snow_owl_tftp.policy.machines import Machine

MAC = "52:54:00:12:34:56"
LEASE = "4000000000 {} 192.0.2.{} * *\n"


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.lines.append((level, event, fields))


class Asker:
    def __init__(self, last: int) -> None:
        self.peer = (f"192.0.2.{last}", 2070)


def settings(*leases: Path, **others: Any) -> MachinesSettings:
    return MachinesSettings(sources=("leases",), leases=tuple(map(str, leases)), **others)


async def until(condition: Callable[[], Any], what: str) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, what
        await asyncio.sleep(0.005)


class Running:
    """A watch that runs in the test's loop."""

    def __init__(self, machines: MachinesSettings) -> None:
        self.watch = MachineWatch(machines)
        self.log = Log()

    async def __aenter__(self) -> "Running":
        self.task = asyncio.create_task(self.watch.run(lambda: self.log))  # type: ignore[arg-type,return-value]
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        self.watch.close()

    def knows(self, last: int) -> Machine | None:
        return self.watch.machines.find(Asker(last))


async def test_file_that_hangs_holds_up_no_other_and_no_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick, well = tmp_path / "sick", tmp_path / "well"
    for path in (sick, well):
        path.write_text("")
    hangs, goes_on = threading.Event(), threading.Event()
    look = LeaseFile.look

    def look_or_hang(file: LeaseFile) -> Any:
        if hangs.is_set() and file.path == str(sick):
            goes_on.wait()
        return look(file)

    monkeypatch.setattr(LeaseFile, "look", look_or_hang)
    try:
        async with Running(settings(sick, well)) as running:
            hangs.set()
            sick.write_text(LEASE.format(MAC, 6))
            for last in (7, 8):
                well.write_text(LEASE.format(MAC, last))
                await until(lambda last=last: running.knows(last), "the file that is well")
            assert running.knows(6) is None
            await until(lambda: running.watch.busy_total == 1, "the one that hangs, alone")
            hangs.clear()
            goes_on.set()
            await until(lambda: running.knows(6), "the file that was sick")
            for turn in running.watch._turns:
                assert turn.not_before_s < time.monotonic() + 2.1, "a long look earns no long rest"
    finally:
        goes_on.set()


async def test_file_that_never_answers_does_not_hold_up_the_start_or_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, goes_on = tmp_path / "sick", threading.Event()
    monkeypatch.setattr(LeaseFile, "look", lambda file: goes_on.wait())
    monkeypatch.setattr(gathered, "_LEASE_PATIENCE_S", 0.1)
    start_s = time.monotonic()
    try:
        async with Running(settings(path)) as running:
            assert running.knows(7) is None
        assert running.watch.busy_total == 1, "left behind"
        assert time.monotonic() - start_s < 10
    finally:
        goes_on.set()


def test_inventory_that_never_comes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(InventoryFile, "fetch", lambda file: goes_on.wait())
    monkeypatch.setattr(gathered, "_PATIENCE_S", 0.1)
    try:
        with pytest.raises(ConfigError, match=r"^machines\.inventory: .*/list\.toml: its file system does not answer$"):
            MachineWatch(settings(inventory=str(tmp_path / "list.toml")))
    finally:
        goes_on.set()


async def test_look_that_fails_by_our_own_fault_costs_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leases"
    path.write_text(LEASE.format(MAC, 6))
    monkeypatch.setattr(watch, "_BLIND_S", 0.05)
    look = LeaseFile.look
    async with Running(settings(path)) as running:
        await until(lambda: not any(turn.is_busy for turn in running.watch._turns), "the first look")
        monkeypatch.setattr(LeaseFile, "look", lambda file: 1 / 0)
        path.write_text(LEASE.format(MAC, 7))
        await until(lambda: running.log.lines, "a line")
        level, event, fields = running.log.lines[0]
        assert (level, event) == ("error", "internal error")
        assert isinstance(fields["exc_info"], ZeroDivisionError)
        monkeypatch.setattr(LeaseFile, "look", look)
        await until(lambda: running.knows(7), "the next look")


async def test_change_during_the_first_look_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leases"
    path.write_text(LEASE.format(MAC, 6))
    is_read, goes_on, look = threading.Event(), threading.Event(), LeaseFile.look

    def look_and_linger(file: LeaseFile) -> Any:
        outcome = look(file)
        is_read.set()
        goes_on.wait()
        return outcome

    running = Running(settings(path))
    monkeypatch.setattr(LeaseFile, "look", look_and_linger)
    try:
        async with running:
            await until(is_read.is_set, "the first look that is heard of")
            path.write_text(LEASE.format(MAC, 7))
            await asyncio.sleep(0.1)  # the news are here before the look is over
            goes_on.set()
            await until(lambda: running.knows(7), "another look")
    finally:
        goes_on.set()


async def test_file_is_looked_at_now_and_then_where_no_watch_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watch, "FolderNews", refused)
    monkeypatch.setattr(watch, "_BLIND_S", 0.05)
    path = tmp_path / "leases"
    path.write_text("")
    async with Running(settings(path)) as running:
        path.write_text(LEASE.format(MAC, 7))
        await until(lambda: running.knows(7), "a look")
        told = [line for line in running.log.lines if line[1] == "files of machines are looked at every 2 s"]
        assert [(level, fields["reason"]) for level, _, fields in told] == [("info", "Too many open files")]


async def test_file_that_is_written_all_the_time_is_looked_at_a_tenth_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, looks = tmp_path / "leases", 0
    path.write_text(LEASE.format(MAC, 7))
    look = LeaseFile.look

    def slow_look(file: LeaseFile) -> Any:
        nonlocal looks
        looks += 1
        time.sleep(0.05)
        return look(file)

    monkeypatch.setattr(LeaseFile, "look", slow_look)
    async with Running(settings(path)) as running:
        end_s = time.monotonic() + 1.5
        while time.monotonic() < end_s:
            path.write_text(LEASE.format(MAC, 7))
            await asyncio.sleep(0.01)
        # 0.05 s each, and nine times that between two: four in that time, and two at the start.
        assert 2 <= looks <= 7
        assert running.knows(7)


async def test_other_settings_are_prepared_in_a_thread_and_taken_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(LEASE.format(MAC, 6))
    second.write_text(LEASE.format(MAC, 7))
    async with Running(settings(first)) as running:
        await until(lambda: running.knows(6), "the first")
        old, prepared = running.watch.in_force, await asyncio.to_thread(running.watch.prepare, settings(second))
        assert running.knows(6)
        assert prepared.machines is not running.watch.machines
        running.watch.take(prepared)
        running.watch.discard(old)
        assert running.knows(7)
        assert running.knows(6) is None
        second.write_text(LEASE.format(MAC, 8))
        await until(lambda: running.knows(8), "the second is followed")


async def test_settings_that_are_refused_change_nothing(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.write_text(LEASE.format(MAC, 6))
    async with Running(settings(first)) as running:
        with pytest.raises(ConfigError, match=r"^machines\.inventory: .*: No such file"):
            running.watch.prepare(settings(first, inventory=str(tmp_path / "none.toml")))
        running.watch.take(running.watch.prepare(settings(first)))
        assert running.knows(6)


async def test_reloads_leave_no_descriptor_behind(tmp_path: Path) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        path.write_text(LEASE.format(MAC, 6))
    before = settled_descriptors()
    kept = 0
    usual = MachinesSettings().sources
    for turn in range(3):
        async with Running(MachinesSettings(leases=(str(paths[0]),))) as running:
            for number in range(10):
                old = running.watch.in_force
                other = MachinesSettings(leases=(str(paths[number % 2]),), sources=usual[number % 3 :])
                prepared = running.watch.prepare(other)
                if number % 4:
                    running.watch.take(prepared)
                running.watch.discard(prepared)
                running.watch.discard(old)
                await asyncio.sleep(0.01)
        if turn == 0:
            kept = settled_descriptors()  # what a first loop opens for good
    assert settled_descriptors() == kept
    assert kept - before < 8
