"""The token bucket: no more than a second's burst, exact in the long run, first come first served."""

import random

import pytest
from tests.conftest import SEED

from snow_owl_tftp.protocol.bucket import NS_PER_S, Bucket, cost_ns

NOW_NS = 10**15


@pytest.mark.parametrize("rate", [1, 3, 1000, 10**10])
def test_a_full_bucket_holds_one_seconds_tokens_and_no_more(rate: int) -> None:
    bucket = Bucket()
    assert bucket.reserve(rate, rate, NOW_NS) == 0
    assert bucket.wait_ns(1, rate, NOW_NS) == cost_ns(1, rate)


def test_what_lies_in_the_past_is_full_and_saves_nothing_up() -> None:
    bucket = Bucket(full_ns=NOW_NS - 3600 * NS_PER_S)
    assert bucket.reserve(100, 100, NOW_NS) == 0
    assert bucket.wait_ns(1, 100, NOW_NS) > 0


def test_who_reserves_waits_behind_those_before_it() -> None:
    bucket = Bucket()
    waits_ns = [bucket.reserve(50, 100, NOW_NS) for _ in range(5)]
    assert waits_ns == [0, 0, NS_PER_S // 2, NS_PER_S, 3 * NS_PER_S // 2]


def test_what_is_more_than_a_second_waits_for_a_full_bucket_and_owes_the_rest() -> None:
    bucket = Bucket()
    assert bucket.reserve(300, 100, NOW_NS) == 0
    assert bucket.wait_ns(1, 100, NOW_NS) == 2 * NS_PER_S + cost_ns(1, 100)
    assert bucket.wait_ns(300, 100, NOW_NS) == 3 * NS_PER_S


def test_to_look_takes_nothing() -> None:
    bucket = Bucket()
    assert bucket.wait_ns(1, 1, NOW_NS) == bucket.wait_ns(1, 1, NOW_NS) == 0
    assert bucket.full_ns == 0


def test_a_change_of_the_rate_keeps_the_time_that_is_owed() -> None:
    bucket = Bucket()
    bucket.reserve(200, 100, NOW_NS)
    assert bucket.wait_ns(10, 1000, NOW_NS) == NS_PER_S + cost_ns(10, 1000)


@pytest.mark.parametrize("rate", [7, 516, 100_003, 10**9])
def test_in_no_span_more_is_let_through_than_its_tokens_and_a_seconds(rate: int) -> None:
    chance = random.Random(SEED + rate)
    bucket, now_ns, sent = Bucket(), NOW_NS, []
    for _ in range(400):
        now_ns += chance.choice([0, 0, 1, chance.randrange(NS_PER_S // 10), chance.randrange(3 * NS_PER_S)])
        amount = chance.randrange(1, max(rate // 5, 2))
        if bucket.wait_ns(amount, rate, now_ns) == 0:
            bucket.take(amount, rate, now_ns)
            sent.append((now_ns, amount))
    for first in range(0, len(sent), 7):
        total = 0
        for at_ns, amount in sent[first:]:
            total += amount
            takes = len(sent) - first
            assert total * NS_PER_S <= rate * (at_ns - sent[first][0] + NS_PER_S + takes)


def test_in_the_long_run_it_gives_what_it_says() -> None:
    bucket, now_ns, rate = Bucket(), NOW_NS, 123_457
    for _ in range(10_000):
        now_ns += bucket.reserve(516, rate, now_ns)
    expected_ns = 10_000 * 516 * NS_PER_S // rate - NS_PER_S
    assert abs(now_ns - NOW_NS - expected_ns) < expected_ns // 10_000
