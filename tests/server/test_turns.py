"""Turns: how long it is decided at a stretch, what is left for later, and when the loop rests. Without an engine."""

import time
from dataclasses import dataclass
from typing import Any

from snow_owl_tftp.server import turns
from snow_owl_tftp.server.turns import Turns

_TURN_S = 0.005


@dataclass
class Waits:
    """A request that came just now, from a host of its own."""

    transfer_id: int
    received_ns: int
    host: bytes


def waiting(count: int, *, ago_ns: int = 0) -> list[Any]:
    now_ns = time.monotonic_ns() - ago_ns
    return [Waits(number, now_ns, b"%d" % number) for number in range(count)]


class Rests:
    total = 0

    def begin(self) -> None:
        self.total += 1


def test_what_fits_a_turn_is_decided_and_no_other_is_planned() -> None:
    decided: list[Any] = []
    one = Turns(1000, Rests().begin)
    for request in waiting(3):
        one.add(request)
    assert one.go(decided.append, decided.append) is None
    assert (len(decided), len(one)) == (3, 0)


def test_a_turn_that_takes_too_long_leaves_the_rest_to_one_that_follows_at_once() -> None:
    rests, decided = Rests(), []
    one = Turns(1000, rests.begin)
    for request in waiting(3):
        one.add(request)

    def decide_slowly(request: Any) -> None:
        decided.append(request)
        one.accepted()
        ended_ns = time.monotonic_ns() + turns._DECIDE_NS
        while time.monotonic_ns() < ended_ns:
            pass

    assert one.go(decide_slowly, decided.append) == 0
    assert (len(decided), len(one), rests.total) == (1, 2, 0)
    assert one.go(decide_slowly, decided.append) is None, "one is planned already"
    assert len(decided) == 2
    one.come()
    assert one.go(decide_slowly, decided.append) is None, "nothing is left"
    assert len(decided) == 3


def test_where_nearly_all_are_refused_a_rest_of_a_turn_begins_in_which_nothing_is_decided() -> None:
    rests, decided = Rests(), []
    one = Turns(1000, rests.begin)
    for request in waiting(3):
        one.add(request)

    def refuse_slowly(request: Any) -> None:
        decided.append(request)
        one.refused()
        ended_ns = time.monotonic_ns() + turns._DECIDE_NS
        while time.monotonic_ns() < ended_ns:
            pass

    assert one.go(refuse_slowly, decided.append) == _TURN_S
    assert rests.total == 1
    assert one.go(refuse_slowly, decided.append) is None
    assert len(decided) == 1
    one.come()
    assert one.go(refuse_slowly, decided.append) == _TURN_S
    assert (len(decided), rests.total) == (2, 2)


def test_one_transfer_for_nine_refusals_is_no_flood() -> None:
    rests = Rests()
    one = Turns(1000, rests.begin)
    for request in waiting(2):
        one.add(request)
    one.accepted()
    for _ in range(8):
        one.refused()

    def refuse_slowly(request: Any) -> None:
        one.refused()
        time.sleep(_TURN_S)

    assert one.go(refuse_slowly, refuse_slowly) == 0
    assert rests.total == 0


def test_who_has_waited_in_vain_is_dropped_and_not_decided() -> None:
    decided, dropped = [], []
    one = Turns(1000, Rests().begin)
    for request in waiting(2, ago_ns=10**10):
        one.add(request)
    assert one.go(decided.append, dropped.append) is None
    assert (len(decided), len(dropped)) == (0, 2)
