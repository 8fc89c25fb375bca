"""The differential test forgets nothing: not a field of either twin, and none that never has another value.

What is compared is what the objects and the struct hold, so it is the list of exceptions that is tested here, and that
a field which only one twin has, or which differs, does fail.
"""

from dataclasses import replace

import pytest

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from tests.engine import test_window_differential as differential
from tests.engine.test_window_differential import OACK, Pair, play_receiver, play_sender, random_terms
from tests.support import twins

from snow_owl_tftp.protocol.packets import build_ack, build_data
from snow_owl_tftp.protocol.patience import Trial
from snow_owl_tftp.protocol.transfer import Receiver, Sender, Terms

ROLES = [Sender, Receiver]
OF_TERMS = {f"terms.{name}" for name in ("windowsize_blocks", "blksize_bytes", "timeout_ns")} | {
    f"terms.policy.{name}"
    for name in (
        *("initial_ns", "floor_ns", "ceiling_ns", "give_up_ns"),
        *("half_open_give_up_ns", "half_open_datagrams", "min_retries"),
    )
}
SETTLED = {
    # A sender knows its file and what it agreed to; the limits of its bursts begin with these.
    Sender: {"role", *OF_TERMS, "last", "rollover", "burst.most", "burst.start", "burst.remembered"},
    # A receiver sends no bursts: what it was told of them it keeps for the client's next transfer.
    Receiver: {"role", *OF_TERMS, "patience.burst_blocks"},
}
"""What never changes in a transfer."""


def a_pair(role: type) -> Pair:
    """In the middle of a window."""
    terms = Terms(OACK, blksize_bytes=8, windowsize_blocks=4)
    pair = differential.sender_pair(100, terms) if role is Sender else differential.receiver_pair(terms)
    pair.both("start")
    pair.now_ns += 1_000_000
    pair.both("receive", build_ack(0) if role is Sender else build_data(1, b"01234567"))
    return pair


def owner(model: Sender | Receiver, path: str) -> tuple[object, str]:
    """What holds an attribute, and its name there."""
    *holders, name = path.split(".")
    holder: object = model
    for inside in holders:
        holder = getattr(holder, inside)
    return holder, name


class Grown:
    """A probe whose struct has one more field."""

    def __init__(self, probe: object, within: str) -> None:
        self._probe, self._within = probe, within

    def __getattr__(self, name: str) -> object:
        return getattr(self._probe, name)

    def flight(self) -> dict[str, object]:
        flight = self._probe.flight()
        (flight[self._within] if self._within else flight)["added"] = 0
        return flight


# --- what is compared ------------------------------------------------------------------------------------


def test_the_twins_have_the_same_fields():
    assert set(twins.of_engine(a_pair(Sender).probe)) == twins.of_role(Sender) | twins.of_role(Receiver)


def test_what_is_excepted_or_renamed_does_exist():
    held = {name for role in ROLES for name in twins.all_of(twins.a_model(role))}
    assert set(twins.NOT_COMPARED) <= held
    assert set(twins.SAME) <= set(a_pair(Sender).probe.flight())
    assert set(twins.SAME.values()) <= held


@pytest.mark.parametrize("within", ["", "rtt", "patience", "burst"])
def test_a_new_field_of_the_engine_without_a_twin_fails(within):
    pair = a_pair(Sender)
    pair.compare("as it is")
    pair.probe = Grown(pair.probe, within)
    with pytest.raises(AssertionError, match="added"):
        pair.compare("with a new field")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", ["added", "rtt.added", "_added"])
def test_a_new_attribute_of_the_model_without_a_twin_fails(role, path):
    pair = a_pair(role)
    setattr(*owner(pair.model, path), 0)
    with pytest.raises(AssertionError, match="added"):
        pair.compare("with a new attribute")


@pytest.mark.parametrize("role", ROLES)
def test_each_field_fails_the_comparison_when_it_differs(role):
    pair = a_pair(role)
    held = {name: value for name, value in twins.all_of(pair.model).items() if name not in twins.NOT_COMPARED}
    for path, value in held.items():
        holder, name = owner(pair.model, path)
        object.__setattr__(holder, name, Trial(1, 2, 3) if name == "_trial" else object())
        with pytest.raises(AssertionError):
            pair.compare(path)
        object.__setattr__(holder, name, value)
        pair.compare(f"{path} as it was")


def test_a_receiver_that_changes_what_is_a_senders_fails():
    pair = a_pair(Receiver)
    pair.beside["unit_base"] += 1
    with pytest.raises(AssertionError, match="unit_base"):
        pair.compare("as if the engine had changed it")


# --- and that it is worth comparing ----------------------------------------------------------------------


@pytest.fixture
def moved(monkeypatch) -> dict[type, set[str]]:
    """By role, what has had another value than behind the first step of its transfer."""
    moved, compare = {Sender: set(), Receiver: set()}, Pair.compare
    first = {}

    def watch(pair: Pair, context: str) -> None:
        compare(pair, context)
        now = {name: bytes(v) if isinstance(v, bytearray) else v for name, v in twins.of_model(pair.model).items()}
        # The pair itself is kept: the id of one that is gone would be another's.
        _, began = first.setdefault(id(pair), (pair, now))
        moved[type(pair.model)] |= {name for name in now if now[name] != began[name]}

    monkeypatch.setattr(Pair, "compare", watch)
    return moved


def play_all(rng) -> None:
    """A little of what the differential test plays."""
    for windowsize in (1, 4, 16):
        for size in differential.sizes(8, windowsize) * 2:
            play_sender(rng, differential.sender_pair(size, random_terms(rng, windowsize)), 150)
        for final_at in (1, 5, 60, 10**9) * 2:
            for opening in (True, False):
                terms = replace(random_terms(rng, windowsize), proven=not opening)
                pair = differential.receiver_pair(terms, opening)
                pair.both("start")
                play_receiver(rng, pair, 200, final_at)
    differential.test_senders_agree_on_losses_that_only_a_timeout_brought_to_light(16, rng)
    differential.test_senders_agree_on_a_client_that_acknowledges_more_often_than_it_agreed_to(3)
    differential.test_senders_agree_on_a_client_that_is_silent_behind_ack_0(16)
    differential.test_receivers_agree_to_follow_a_sender_that_goes_on_with_1_in_lock_step_alone(1)
    differential.test_receivers_agree_on_a_sender_that_had_only_paused()


def test_every_field_but_what_is_settled_changes_in_what_is_played(moved, rng):
    play_all(rng)
    for role in ROLES:
        assert twins.of_role(role) - moved[role] == SETTLED[role], role
