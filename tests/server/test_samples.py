"""Samples of batch calls: figures from differences, once a second at most, and no timer while nothing moves."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.client import Client
from tests.support.server import QUIET_S, cpu_of_a_quiet_second, serve_command, wait_for

from snow_owl_tftp.events.event import BatchCalls
from snow_owl_tftp.observe.samples import SAMPLE_S, CallSampler

NOTHING = dict.fromkeys(
    (
        "recvmmsg_calls",
        "recvfrom_calls",
        "recvmmsg_empty",
        "recvfrom_empty",
        "sendmmsg_calls",
        "sendto_calls",
        "datagrams_received",
        "datagrams_sent",
        "epoll_wait_calls",
    ),
    0,
)


class Timer:
    """A loop whose only timer is set off by the test."""

    def __init__(self) -> None:
        self.planned: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> "Timer":
        assert delay_s == SAMPLE_S
        self.planned.append(callback)
        return self

    def cancel(self) -> None:
        self.planned.clear()

    def ring(self) -> None:
        self.planned.pop()()


def make_sampler(**counted: int) -> tuple[CallSampler, Timer, dict[str, int], list[BatchCalls]]:
    counters = {**NOTHING, **counted}
    timer, told = Timer(), list[BatchCalls]()
    sampler = CallSampler(timer, lambda: counters, told.append)  # type: ignore[arg-type]
    return sampler, timer, counters, told


def test_sample_holds_what_happened_since_the_one_before() -> None:
    sampler, timer, counters, told = make_sampler(recvmmsg_calls=100, datagrams_received=900, sendmmsg_calls=7)
    sampler.wake()
    counters |= {"recvmmsg_calls": 104, "recvmmsg_empty": 1, "recvfrom_calls": 1, "datagrams_received": 930}
    counters |= {"sendmmsg_calls": 9, "sendto_calls": 1, "datagrams_sent": 8}
    timer.ring()
    counters |= {"recvmmsg_calls": 105, "datagrams_received": 931}
    timer.ring()
    assert told == [BatchCalls(5, 7.5, 1, 3, 2.67), BatchCalls(1, 1.0, 0, 0, 0.0)]


def test_timer_runs_only_while_datagrams_flow() -> None:
    sampler, timer, counters, told = make_sampler()
    assert timer.planned == []
    sampler.wake()
    sampler.wake()
    assert len(timer.planned) == 1
    counters["datagrams_sent"] += 1
    timer.ring()
    assert len(timer.planned) == 1, "it moved: look again"
    counters["epoll_wait_calls"] += 1
    timer.ring()
    assert timer.planned == [], "nothing moved: look no more"
    assert len(told) == 1
    sampler.wake()
    assert len(timer.planned) == 1


def test_stop_tells_the_rest_and_leaves_no_timer() -> None:
    sampler, timer, counters, told = make_sampler()
    sampler.stop()
    sampler.wake()
    counters["datagrams_received"] += 1
    sampler.stop()
    assert timer.planned == []
    assert len(told) == 1


def test_counters_read_between_two_of_their_writes_are_no_error() -> None:
    sampler, timer, counters, told = make_sampler()
    sampler.wake()
    counters["datagrams_received"] = 3
    timer.ring()
    assert told[0].datagrams_per_receive == 0.0


def test_real_loop_takes_a_sample() -> None:
    async def sample() -> BatchCalls:
        taken: asyncio.Queue[BatchCalls] = asyncio.Queue()
        counters = dict(NOTHING)
        sampler = CallSampler(asyncio.get_running_loop(), lambda: counters, taken.put_nowait)
        counters["datagrams_sent"] = 1
        sampler.wake()
        async with asyncio.timeout(20):
            return await taken.get()

    assert asyncio.run(sample()).send_calls == 0


# ---- in the log


def batch_calls(text: str) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in parsed if line["event"] == "batch calls"]


def test_server_tells_how_many_it_turned_away(root: Path) -> None:
    totals = {"opens_busy", "texts_busy", "streams_refused", "streams_gave_way", "waited_in_vain"}
    with serve_command(root, "--log-level", "debug", "--log-format", "json") as server:
        with Client(server.address) as client:
            client.get("boot.img")
        wait_for(lambda: batch_calls(server.log), "a sample")
    assert totals <= set(batch_calls(server.log)[0])
    stopped = [json.loads(line) for line in server.log.splitlines() if "server stopped" in line]
    assert [stopped[0][name] for name in totals] == [0] * len(totals)


def test_server_at_debug_tells_batch_calls_and_then_uses_no_cpu(root: Path) -> None:
    with serve_command(root, "--log-level", "debug", "--log-format", "json") as server:
        with Client(server.address) as client:
            client.get("boot.img")
        wait_for(lambda: batch_calls(server.log), "a sample")
        told = 0
        while told != (now := len(batch_calls(server.log))):  # until a look has found nothing, however late it was
            told = now
            threading.Event().wait(3 * SAMPLE_S)
        assert cpu_of_a_quiet_second(server.process.pid) <= QUIET_S
        assert len(batch_calls(server.log)) == told
    for line in batch_calls(server.log):
        assert line["receive_calls"] > line["empty_calls"] >= 0
        assert line["datagrams_per_receive"] >= 1
        assert line["send_calls"] > 0
        assert line["datagrams_per_send"] >= 1


def test_server_at_info_takes_no_samples(root: Path) -> None:
    with serve_command(root, "--log-level", "info", "--log-format", "json") as server, Client(server.address) as client:
        client.get("boot.img")
    assert batch_calls(server.log) == []
