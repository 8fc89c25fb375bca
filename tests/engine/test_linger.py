"""The adaptive law, as the worker's own source computes it (docs/batching.md).

May know: the probe. Must not: start an engine.
"""

import pytest

from snow_owl_tftp._engine import probe

AT_ONCE, BATCHING, LINGERING = 0, 1, 2
US = 1000
PER_US = 1e-3
"""One datagram a microsecond, in datagrams per nanosecond."""


@pytest.mark.parametrize(("live", "law"), [(0, (AT_ONCE, 0)), (4_999, (AT_ONCE, 0)), (5_000, (LINGERING, 300 * US))])
def test_below_the_threshold_it_answers_at_once(live: int, law: tuple[int, int]) -> None:
    # Packets of one transfer come 5 ms apart, and 300 datagrams in 300 us: no other bound holds.
    adaptive = {"linger_us": 300, "adaptive": True, "adaptive_threshold": 5_000, "max_batch": 1024}
    assert probe.linger_law(live, PER_US, **adaptive) == law


@pytest.mark.parametrize("live", [0, 1, 1000])
def test_without_adaptive_batching_it_lingers_always_and_as_long_as_asked(live: int) -> None:
    assert probe.linger_law(live, 0.0, linger_us=300) == (LINGERING, 300 * US)


@pytest.mark.parametrize("adaptive", [False, True])
def test_nothing_is_waited_for_where_a_call_takes_one_datagram(adaptive: bool) -> None:
    assert probe.linger_law(1000, PER_US, linger_us=300, adaptive=adaptive, recvmmsg=False) == (AT_ONCE, 0)


@pytest.mark.parametrize("adaptive", [False, True])
def test_no_timeout_no_linger(adaptive: bool) -> None:
    assert probe.linger_law(1000, PER_US, linger_us=0, adaptive=adaptive) == (BATCHING, 0)


def test_nothing_is_waited_for_that_does_not_come() -> None:
    assert probe.linger_law(1000, 0.0, linger_us=300, adaptive=True) == (BATCHING, 0)


@pytest.mark.parametrize(
    ("bound", "live", "rate_per_ns", "max_batch", "linger_ns"),
    [
        ("batch_timeout_us", 16_000, PER_US, 1024, 1000 * US),
        ("an eighth of a transfer's cycle", 4_000, PER_US, 1024, 500 * US),
        ("until a batch is full", 16_000, PER_US, 256, 256 * US),
        ("50 us, just", 400, PER_US, 1024, 50 * US),
        ("50 us, just not", 399, PER_US, 1024, 0),
        ("50 us, by a full batch", 16_000, PER_US, 49, 0),
        ("8 datagrams, just", 16_000, 8 / (1000 * US), 1024, 1000 * US),
        ("8 datagrams, just not", 16_000, 7.9 / (1000 * US), 1024, 0),
        ("8 datagrams, by the cycle: 8 transfers an eighth", 63, PER_US / 100, 1024, 0),
    ],
)
def test_each_bound_of_the_law(bound: str, live: int, rate_per_ns: float, max_batch: int, linger_ns: int) -> None:
    law = probe.linger_law(live, rate_per_ns, linger_us=1000, adaptive=True, max_batch=max_batch)
    assert law == (LINGERING if linger_ns else BATCHING, linger_ns), bound


def test_rate_approaches_what_arrives_by_a_quarter_a_step() -> None:
    assert probe.smoothed(0.0, 1000, 1_000_000) == pytest.approx(PER_US / 4)
    assert probe.smoothed(PER_US, 1000, 1_000_000) == pytest.approx(PER_US)
    assert probe.smoothed(PER_US, 0, 1_000_000) == pytest.approx(PER_US * 3 / 4)


def test_rate_of_before_an_idle_time_is_forgotten() -> None:
    assert probe.smoothed(PER_US, 1, 100_000_000) > 0
    assert probe.smoothed(PER_US, 1, 100_000_001) == 0
