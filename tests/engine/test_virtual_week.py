"""A week of boot storms in virtual time, and clocks that are old: the law neither drifts nor minds how late it is.

A storm an hour: clients that come back for their next file with what the server remembers of them (five minutes; so
the next storm meets strangers), through a network whose weather changes from hour to hour. What a quiet hour costs on
the last day must be what it cost on the first. And whatever happens may not depend on when: the same script plays at
clocks around 2^32, a week, 2^53, 2^60 and 2^63 ns, to the same datagrams at the same distances.
"""

import random
from dataclasses import dataclass, fields

import pytest
from tests.conftest import SEED
from tests.support.network import Network, Weather
from tests.support.soak import many

from snow_owl_tftp.protocol.patience import Patience
from snow_owl_tftp.protocol.transfer import Terms

probe = pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")

SENDER, RECEIVER = 0, 1
HOUR_NS = 3600 * 10**9
WEEK_HOURS = 7 * 24
BLOCKS, BLKSIZE = 60, 32
OACK = b"\0\6windowsize\0" + b"8\0"
FILES = 4
CALM = Weather(jitter_ns=50_000)
WEATHERS = [CALM, Weather(loss=0.01), Weather(loss=0.1), Weather(duplicate=0.05), Weather(late=0.02, late_ns=5_000_000)]
OLD_CLOCKS = {
    "2^32": 2**32 - 500_000_000,
    "a week": 7 * 24 * HOUR_NS,
    "2^53": 2**53 - 500_000_000,
    "2^60": 2**60 - 500_000_000,
    "2^63": 2**63 - 500_000_000,
}


@dataclass(frozen=True)
class Played:
    took_ns: int
    datagrams: tuple[int, ...]
    retransmits: int
    outcome: str
    is_whole: bool


def learned(sender) -> Patience:
    known = sender.learned()
    return Patience(**{field.name: known[field.name] for field in fields(Patience)})


class Stored:
    """A receiver whose file is safe as soon as it is there."""

    def __init__(self, machine):
        self.machine = machine

    def __getattr__(self, name):
        return getattr(self.machine, name)

    def start(self, now_ns):
        self.machine.start(now_ns)
        return []  # its ACK 0 answers the OACK

    def receive(self, datagram, now_ns):
        answers = self.machine.receive(datagram, now_ns)
        if self.machine.received and self.machine.outcome is None:
            answers = self.machine.commit(now_ns)
        return answers


def transfer(weather: Weather, dice: random.Random, now_ns: int, known: Patience | None = None):
    content = dice.randbytes(BLOCKS * BLKSIZE - 5)
    sender = probe.FlightProbe(SENDER, Terms(OACK, BLKSIZE, 8, patience=known), content)
    receiver = probe.FlightProbe(RECEIVER, Terms(b"", BLKSIZE, 8, proven=True), b"", False)
    network = Network(weather, dice, now_ns=now_ns)
    took_ns = network.run((sender, Stored(receiver)), HOUR_NS)
    is_whole = receiver.delivered == content
    return sender, Played(took_ns, tuple(network.sent), sender.retransmits, sender.outcome, is_whole)


def storm(weather: Weather, dice: random.Random, now_ns: int, clients: int) -> list[Played]:
    played = []
    for _ in range(clients):
        known, client_ns = None, now_ns
        for _ in range(FILES):
            sender, one = transfer(weather, dice, client_ns, known)
            known, client_ns = learned(sender), client_ns + one.took_ns + 10**9
            played.append(one)
    return played


def week(clients: int) -> dict[int, list[Played]]:
    """By hour. Each fourth is calm, with dice of its own, so that all calm hours have the same luck."""
    dice = random.Random(SEED)
    hours = {}
    for hour in range(WEEK_HOURS):
        is_calm = hour % 4 == 0
        weather = CALM if is_calm else dice.choice(WEATHERS)
        hours[hour] = storm(weather, random.Random(1) if is_calm else dice, 10**9 + hour * HOUR_NS, clients)
    return hours


def check_week(clients: int) -> None:
    hours = week(clients)
    every = [one for played in hours.values() for one in played]
    assert all(one.is_whole and one.outcome == "OK" for one in every)
    assert sum(one.retransmits for one in every) > 1000, "there was weather"
    assert all(played == hours[0] for hour, played in hours.items() if hour % 4 == 0), "no drift"
    assert not any(one.retransmits for one in hours[0])


def test_a_week_of_storms_leaves_the_law_as_it_was():
    check_week(clients=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_soak_a_week_of_larger_storms():
    """Of 60 clients; with SNOW_OWL_SOAK=full, of 200."""
    check_week(clients=many(60, full=200))


@pytest.mark.parametrize("now_ns", OLD_CLOCKS.values(), ids=OLD_CLOCKS)
def test_what_happens_does_not_depend_on_how_late_it_is(now_ns):
    for number, weather in enumerate(WEATHERS):
        young = storm(weather, random.Random(number), 10**9, 3)
        assert storm(weather, random.Random(number), now_ns, 3) == young


@pytest.mark.parametrize("now_ns", OLD_CLOCKS.values(), ids=OLD_CLOCKS)
def test_timers_of_an_old_clock_fire_in_time(now_ns):
    dice = random.Random(SEED)
    wheel = probe.WheelProbe(300, now_ns)
    due = {
        number: now_ns + dice.randrange(dice.choice([10**6, 10**9, 255 * 10**9, 765 * 10**9])) for number in range(300)
    }
    for number, deadline_ns in due.items():
        wheel.set(number, deadline_ns)
    while due:
        next_ns = wheel.next_ns()
        assert next_ns <= min(due.values()) + 10**6
        now_ns = max(now_ns, next_ns)
        while (number := wheel.take_due(now_ns)) is not None:
            assert due.pop(number) <= now_ns
        assert not due or min(due.values()) > now_ns - 2 * 10**6, "none is late"
