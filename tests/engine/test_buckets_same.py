"""The engine's buckets do what the model's do, alone and shared; a worker's table is bounded and forgets in time."""

import random

import pytest

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from snow_owl_tftp._engine.probe import BucketProbe, BucketTableProbe
from tests.conftest import SEED

from snow_owl_tftp.protocol.bucket import NS_PER_S, Bucket

RATES = [1, 2, 516, 99_991, 10**6, 10**9, 10**10]
NOW_NS = 5 * 10**17
"""Sixteen years of uptime."""


@pytest.mark.parametrize("rate", RATES)
def test_both_twins_say_the_same_at_every_step(rate: int) -> None:
    chance = random.Random(SEED + rate)
    model, probe, now_ns = Bucket(), BucketProbe(), NOW_NS
    for _ in range(5_000):
        now_ns += chance.choice([0, 1, chance.randrange(NS_PER_S), chance.randrange(10 * NS_PER_S)])
        amount = chance.choice([1, chance.randrange(1, min(2**32, 1000 * rate + 1)), chance.randrange(1, rate + 2)])
        used = chance.choice([rate, rate, chance.choice(RATES)])  # a reload
        assert probe.wait_ns(amount, used, now_ns) == model.wait_ns(amount, used, now_ns)
        if chance.random() < 0.5:
            waits_ns = model.wait_ns(amount, used, now_ns)
            if waits_ns == 0:
                model.take(amount, used, now_ns)
            assert probe.take_now(amount, used, now_ns) == waits_ns
        elif model.full_ns < now_ns + 10 * NS_PER_S:
            assert probe.reserve(amount, used, now_ns) == model.reserve(amount, used, now_ns)
        assert probe.full_ns == model.full_ns
        if model.full_ns > now_ns + 10**6 * NS_PER_S:
            now_ns = model.full_ns


def test_each_client_has_a_bucket_of_its_own() -> None:
    table = BucketTableProbe(16)
    for client in range(16 * table.ways):
        assert [table.ask(client, 2, NOW_NS) for _ in range(3)] == [True, True, False]
    assert table.replaced == 0


def test_an_entry_that_is_full_again_is_an_unused_one() -> None:
    table = BucketTableProbe(1)
    for turn in range(10):
        for client in range(table.ways):
            assert table.ask(turn * 100 + client, 1, NOW_NS + turn * NS_PER_S)
    assert table.replaced == 0


def test_in_a_full_set_the_fullest_gives_way_and_is_counted() -> None:
    table = BucketTableProbe(1)
    for client in range(table.ways):
        for _ in range(client + 1):
            table.ask(client, 10, NOW_NS)
    assert table.ask(1000, 10, NOW_NS)
    assert table.replaced == 1
    for _ in range(9):
        assert table.ask(1000, 10, NOW_NS)
    assert not table.ask(1000, 10, NOW_NS), "the newcomer has no more than anybody"
    for client in range(1, table.ways):
        asked = sum(table.ask(client, 10, NOW_NS) for _ in range(20))
        assert asked == 10 - (client + 1), "the others were kept"
