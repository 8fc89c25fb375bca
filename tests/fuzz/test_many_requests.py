"""Millions of requests of every kind: what the server holds afterwards is what it held after the first thousands.

A round is mostly tiny files that flows answer, from an address each, and then files without a flow, refusals, and
uploads. After each round the victim says what it holds.
"""

import itertools
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.fuzz.attack import CONTENT, Victim, make_root
from tests.support.client import Client
from tests.support.server import wait_for
from tests.support.soak import many

from snow_owl_tftp.bench.load import Load

TINY = CONTENT[:400]
UNDER_WAY = ("live_transfers", "half_open_transfers")
IS_SANITIZED = os.environ.get("SNOW_OWL_BUILD") == "sanitize"
"""ASan keeps what was freed for a while, by design: there RSS tells nothing."""


@contextmanager
def tiny_load(victim: Victim) -> Iterator[Load]:
    load = Load(
        *victim.address, "honest/small", TINY, clients=100, blksize_bytes=512, windowsize_blocks=1, client_timeout_s=2.0
    )
    try:
        load.learn(20)
        yield load
    finally:
        load.close()


def hear(sock: socket.socket, victim: Victim) -> bytes:
    """Of whatever comes: other programs on this machine may speak to a port that was theirs a moment ago."""
    while True:
        datagram, sender = sock.recvfrom(600)
        if sender[1] in victim.ports:
            return datagram


def ask_in_vain(victim: Victim, count: int) -> None:
    """Refused one by one, under names that nobody has asked for before."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(32)]
        for one in sockets:
            one.settimeout(10)
        names = (f"missing-{victim.fuzzed}-{number}" for number in itertools.count())
        for start in range(0, count, len(sockets)):
            for one in sockets[: count - start]:
                one.sendto(b"\0\1" + next(names).encode() + b"\0octet\0", victim.address)
                victim.fuzzed += 1
            for one in sockets[: count - start]:
                assert hear(one, victim)[:4] == b"\0\5\0\1"


def upload(victim: Victim, count: int) -> None:
    rng = random.Random(SEED)
    for number in range(count):
        with Client(victim.address, timeout_s=2.0) as client:
            client.put(f"up/{number % 50}", CONTENT[: rng.randrange(3000)])


def play_round(victim: Victim, load: Load, tiny: int, others: int) -> int:
    """Returns how many requests that were."""
    result = load.run(tiny, 3600, lambda ended: None)
    assert (result["finished"], result["failed"], result["wrong_bytes"]) == (tiny, 0, 0), result
    ask_in_vain(victim, others)
    for _ in range(others // 20):
        with Client(victim.address, timeout_s=2.0) as client:
            # netascii is never a flow: Python decides about each.
            assert client.get("text", mode="netascii").payload
    upload(victim, others // 20)
    return tiny + others + 2 * (others // 20)


def play(victim: Victim, rounds: int, tiny: int, others: int) -> list[dict[str, int]]:
    held, total, began = [], 0, time.monotonic()
    with tiny_load(victim) as load:
        for _ in range(rounds):
            total += play_round(victim, load, tiny, others)
            report = wait_for(lambda: settled(victim), "all transfers at their end", 60)
            held.append({name: report[name] for name in ("rss_kb", "descriptors")} | report["live"])
            print(f"{total} requests, {time.monotonic() - began:.0f} s: {held[-1]}", flush=True)
    return held


def settled(victim: Victim) -> dict[str, int] | None:
    report = victim.report()
    return None if any(report["counts"][level] for level in UNDER_WAY) else report


def check(tmp_path: Path, rounds: int, tiny: int, others: int, growth_kb: int) -> None:
    """The first quarter of the rounds is the warm-up: every table and cache is as large as it will be."""
    overrides = {"performance.platform.batch.enable_flows": True, "logging.level": "warning"}
    with Victim(make_root(tmp_path), tmp_path, Path(), overrides) as victim:
        held = play(victim, rounds, tiny, others)
        warm = held[rounds // 4 :]
        assert victim.report()["counts"]["flow_hits"] >= rounds * tiny * 0.9
        wait_for(lambda: not any(victim.report()["live"][name] for name in ("transfers", "sinks")), "the end", 30)
        victim.check_end()
    if not IS_SANITIZED:
        assert max(one["rss_kb"] for one in warm) - warm[0]["rss_kb"] <= growth_kb, held
    for name in ("descriptors", "recipes", "sources"):
        assert max(one[name] for one in warm) <= warm[0][name] + 8, (name, held)


@pytest.mark.timeout(300)
def test_thousands_of_requests_leave_nothing_behind(tmp_path):
    check(tmp_path, rounds=8, tiny=2000, others=200, growth_kb=4096)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_soak_very_many_requests(tmp_path):
    """Of 300 000; with SNOW_OWL_SOAK=full, ten million."""
    rounds, tiny, others = many((20, 14_000, 1000), full=(40, 240_000, 10_000))
    check(tmp_path, rounds, tiny, others, growth_kb=8192)
