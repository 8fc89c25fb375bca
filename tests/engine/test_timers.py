"""The timer wheel against a plain list of deadlines: nothing fires early, nothing is forgotten, nothing is late."""

import pytest

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from snow_owl_tftp._engine import probe

TICK_NS = 1_000_000
AHEAD_NS = 4096 * TICK_NS
START_NS = 987_654_321_987


def due(wheel, now_ns):
    numbers = []
    while (number := wheel.take_due(now_ns)) is not None:
        numbers.append(number)
    return numbers


def test_an_empty_wheel_waits_for_ever():
    wheel = probe.WheelProbe(1, START_NS)
    assert wheel.next_ns() is None
    assert due(wheel, START_NS + 10 * AHEAD_NS) == []
    wheel.set(0, START_NS + 10 * AHEAD_NS + 1)
    assert due(wheel, START_NS + 10 * AHEAD_NS) == []


def test_a_deadline_fires_within_one_tick_and_never_early():
    for delay_ns in (0, 1, TICK_NS - 1, TICK_NS, TICK_NS + 1, 63 * TICK_NS, 64 * TICK_NS, AHEAD_NS - 1, AHEAD_NS):
        wheel = probe.WheelProbe(1, START_NS)
        wheel.set(0, START_NS + delay_ns)
        assert delay_ns == 0 or due(wheel, START_NS + delay_ns - 1) == []
        assert due(wheel, START_NS + delay_ns + TICK_NS) == [0]
        assert wheel.waiting == 0


def test_a_later_deadline_costs_nothing_and_is_kept():
    wheel = probe.WheelProbe(1, START_NS)
    wheel.set(0, START_NS + 5 * TICK_NS)
    wheel.set(0, START_NS + 50 * TICK_NS)
    assert due(wheel, START_NS + 49 * TICK_NS) == []
    assert due(wheel, START_NS + 51 * TICK_NS) == [0]


def test_an_earlier_deadline_takes_effect_at_once():
    wheel = probe.WheelProbe(1, START_NS)
    wheel.set(0, START_NS + 3000 * TICK_NS)
    wheel.set(0, START_NS + 5 * TICK_NS)
    assert wheel.next_ns() <= START_NS + 6 * TICK_NS
    assert due(wheel, START_NS + 6 * TICK_NS) == [0]


def test_a_removed_one_never_fires():
    wheel = probe.WheelProbe(2, START_NS)
    wheel.set(0, START_NS + TICK_NS)
    wheel.set(1, START_NS + TICK_NS)
    wheel.remove(0)
    wheel.remove(0)
    assert due(wheel, START_NS + 3 * TICK_NS) == [1]


def test_deadlines_beyond_the_wheel_wait_their_turn():
    wheel = probe.WheelProbe(3, START_NS)
    for number, laps in enumerate((3, 1, 2)):
        wheel.set(number, START_NS + laps * AHEAD_NS + 7 * TICK_NS)
    now_ns, fired = START_NS, []
    while wheel.waiting:
        now_ns = max(now_ns, wheel.next_ns())
        fired += [(number, now_ns) for number in due(wheel, now_ns)]
    assert [number for number, _ in fired] == [1, 2, 0]
    for number, at_ns in fired:
        assert 0 <= at_ns - (START_NS + (3, 1, 2)[number] * AHEAD_NS + 7 * TICK_NS) <= 2 * TICK_NS


@pytest.mark.parametrize("spread_ns", [20 * TICK_NS, AHEAD_NS, 3 * AHEAD_NS], ids=["near", "one lap", "three laps"])
def test_the_wheel_fires_what_a_list_fires(spread_ns, rng):
    count = 200
    wheel, deadlines, now_ns, fired_total = probe.WheelProbe(count, START_NS), {}, START_NS, 0
    for _ in range(3000):
        for _ in range(rng.randrange(4)):
            number = rng.randrange(count)
            if rng.random() < 0.2:
                wheel.remove(number)
                deadlines.pop(number, None)
            else:
                deadlines[number] = now_ns + rng.randrange(spread_ns)
                wheel.set(number, deadlines[number])
        if deadlines:
            # Looking again at next_ns() is enough: it is never more than a tick after the first deadline.
            assert wheel.next_ns() <= min(deadlines.values()) + TICK_NS
        now_ns += rng.randrange(spread_ns // 50)
        fired = due(wheel, now_ns)
        fired_total += len(fired)
        assert all(deadlines[number] <= now_ns for number in fired), "fired early"
        for number in fired:
            del deadlines[number]
        assert all(deadline > now_ns - TICK_NS for deadline in deadlines.values()), "forgotten"
        assert wheel.waiting == len(deadlines)
    assert fired_total > 500


def test_a_long_sleep_fires_everything_that_was_due(rng):
    wheel = probe.WheelProbe(500, START_NS)
    for number in range(500):
        wheel.set(number, START_NS + rng.randrange(AHEAD_NS))
    assert sorted(due(wheel, START_NS + 100 * AHEAD_NS)) == list(range(500))
