"""Who waits for a thread is answered in time, and what comes too late is let go."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from tests.support.server import wait_for

from snow_owl_tftp.server import slow_opens
from snow_owl_tftp.server.patient import PatientThreads
from snow_owl_tftp.server.slow_opens import Elsewhere, SlowOpens

DEADLINE_S = 20


class Found:
    """A verdict."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_discarded = False

    def discard(self) -> None:
        self.is_discarded = True


BUSY = Found("busy")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def opens() -> Iterator[SlowOpens]:
    threads = PatientThreads(8, 2, "test", max_spares=1, hang_s=0.05)
    yield SlowOpens(threads, 40)
    threads.shutdown()


def decide(opens: SlowOpens, device: int, call: object) -> "Found | asyncio.Task[Found]":
    return opens.decide(device, call, lambda: BUSY)  # type: ignore[arg-type]


async def answer(verdict: "Found | asyncio.Task[Found]") -> Found:
    return verdict if isinstance(verdict, Found) else await asyncio.wait_for(verdict, DEADLINE_S)


async def test_what_is_found_is_the_answer(opens: SlowOpens) -> None:
    found = Found("file")
    assert await answer(decide(opens, 7, lambda device: found)) is found
    assert not found.is_discarded
    assert opens.busy_total == 0


async def test_what_comes_too_late_is_refused_and_let_go(
    opens: SlowOpens, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    monkeypatch.setattr(slow_opens, "OPEN_PATIENCE_S", 0.05)
    late = Found("late")

    def find(device: int | None) -> Found:
        release.wait(DEADLINE_S)
        return late

    assert await answer(decide(opens, 7, find)) is BUSY
    assert opens.busy_total == 1
    release.set()
    wait_for(lambda: late.is_discarded, "the late one to be let go")


async def test_whoever_must_ask_another_device_stands_in_its_queue(opens: SlowOpens, release: threading.Event) -> None:
    asked: list[int | None] = []

    def find(device: int | None) -> Found:
        asked.append(device)
        if device in (7, 8):
            raise Elsewhere(device + 1)
        return Found(f"on {device}")

    assert (await answer(decide(opens, 7, find))).name == "on 9"
    assert asked == [7, 8, 9]


async def test_a_way_without_end_is_asked_for_without_keeping_apart(opens: SlowOpens) -> None:
    def find(device: int | None) -> Found:
        if device is not None:
            raise Elsewhere(device + 1)
        return Found("at last")

    assert (await answer(decide(opens, 7, find))).name == "at last"


async def test_a_device_that_is_stuck_or_sick_is_told_at_once(opens: SlowOpens, release: threading.Event) -> None:
    def hang(device: int | None) -> Found:
        release.wait(DEADLINE_S)
        return Found("late")

    waiting = [decide(opens, 7, hang) for _ in range(5)]
    wait_for(lambda: opens._threads.is_stuck(7), "all threads of the device to hang")
    assert decide(opens, 7, hang) is BUSY
    assert (await answer(decide(opens, 8, lambda device: Found("well")))).name == "well"
    opens.is_sick = lambda device: device == 8
    assert decide(opens, 8, lambda device: Found("well")) is BUSY

    def leads_there(device: int | None) -> Found:
        raise Elsewhere(8)

    assert await answer(decide(opens, 9, leads_there)) is BUSY
    release.set()
    for verdict in waiting:
        await answer(verdict)


async def test_no_more_wait_for_one_device_than_half_of_all(opens: SlowOpens, release: threading.Event) -> None:
    def hang(device: int | None) -> Found:
        release.wait(DEADLINE_S)
        return Found("late")

    verdicts = [decide(opens, device, hang) for device in (1, 2, 3) for _ in range(21)]
    assert sum(verdict is BUSY for verdict in verdicts[:21]) == 1
    assert sum(verdict is not BUSY for verdict in verdicts) == 40
    release.set()
    for verdict in verdicts:
        await answer(verdict)


async def test_who_does_not_wait_any_more_has_what_is_found_let_go(opens: SlowOpens, release: threading.Event) -> None:
    found, begun = Found("file"), threading.Event()

    def find(device: int | None) -> Found:
        begun.set()
        release.wait(DEADLINE_S)
        return found

    verdict = decide(opens, 7, find)
    assert not isinstance(verdict, Found)
    assert await asyncio.to_thread(begun.wait, DEADLINE_S)
    verdict.cancel()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await verdict
    await asyncio.to_thread(wait_for, lambda: found.is_discarded, "it to be let go")
    assert opens._waiting_total == 0


async def test_failure_of_a_call_is_that_of_its_verdict(opens: SlowOpens) -> None:
    def fail(device: int | None) -> Found:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await answer(decide(opens, 7, fail))
    assert opens._waiting_total == 0


def test_opens_serve_one_loop_after_another(opens: SlowOpens) -> None:
    async def once() -> str:
        return (await answer(decide(opens, 7, lambda device: Found("file")))).name

    assert [asyncio.run(once()) for _ in range(3)] == ["file"] * 3
