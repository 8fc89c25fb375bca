"""Whose request is decided next, and which are dropped."""

import random
from dataclasses import dataclass

import pytest

from snow_owl_tftp.server.waiting import LATE_NS, PATIENCE_NS, Waiting


@dataclass(frozen=True)
class Asked:
    transfer_id: int
    host: bytes
    received_ns: int = 0


def waiting(*hosts: str, crowd: int = 1000) -> Waiting[Asked]:
    """Requests 0, 1, … of these hosts, each a nanosecond after the one before."""
    queue: Waiting[Asked] = Waiting(crowd)
    for number, host in enumerate(hosts):
        queue.add(Asked(number, host.encode(), number))
    return queue


def taken(queue: Waiting[Asked], now_ns: int = 0) -> list[int]:
    order = []
    while (asked := queue.take(now_ns)) is not None:
        order.append(asked.transfer_id)
    return order


def dropped(queue: Waiting[Asked], now_ns: int) -> list[int]:
    order = []
    while (asked := queue.drop(now_ns)) is not None:
        order.append(asked.transfer_id)
    return order


def test_one_address_is_answered_in_the_order_in_which_it_asked() -> None:
    assert taken(waiting("a", "a", "a")) == [0, 1, 2]


def test_of_one_address_the_newest_is_first_when_all_are_late() -> None:
    assert taken(waiting("a", "a", "a"), LATE_NS + 10) == [2, 1, 0]


def test_an_address_with_many_requests_waits_for_them_alone() -> None:
    queue = waiting(*"aaaaa")
    first = queue.take(0)
    assert first is not None
    queue.add(Asked(5, b"b"))
    queue.add(Asked(6, b"c"))
    assert taken(queue) == [6, 5, 1, 2, 3, 4], "who had no turn comes first, the newest before the others"


def test_addresses_take_turns() -> None:
    hosts = ["aaabbbccc"[number] for number in taken(waiting(*"aaabbbccc"))]
    assert sorted(hosts[:3]) == sorted(hosts[3:6]) == sorted(hosts[6:]) == ["a", "b", "c"]


def test_what_is_older_than_a_clients_patience_is_dropped_the_oldest_first() -> None:
    queue = waiting("a", "b", "a", "c")
    assert dropped(queue, PATIENCE_NS) == []
    assert dropped(queue, PATIENCE_NS + 2) == [0, 1]
    assert len(queue) == 2
    assert sorted(taken(queue)) == [2, 3]


def test_in_a_crowd_what_is_late_is_dropped_until_it_is_none() -> None:
    queue = waiting(*"abcde", crowd=3)
    assert dropped(queue, LATE_NS) == [], "a burst that was just received is no crowd yet"
    assert dropped(queue, LATE_NS + 10) == [0, 1]


@pytest.mark.parametrize("seed", range(20))
def test_each_is_taken_or_dropped_once(seed: int) -> None:
    rng = random.Random(seed)
    queue: Waiting[Asked] = Waiting(20)
    now_ns, number, seen = 0, 0, []
    for _ in range(2000):
        now_ns += rng.randrange(LATE_NS // 4)
        action = rng.randrange(3)
        if action == 0:
            for _ in range(rng.randrange(4)):
                queue.add(Asked(number, rng.choice("abcdef").encode(), now_ns))
                number += 1
        elif asked := queue.take(now_ns) if action == 1 else queue.drop(now_ns):
            assert action == 1 or asked.received_ns < now_ns - LATE_NS
            seen.append(asked.transfer_id)
        assert len(queue) == number - len(seen)
    seen += taken(queue, now_ns)
    assert sorted(seen) == list(range(number))
    assert len(queue) == 0
