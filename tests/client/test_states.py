"""The table of a transfer's states: what may follow what, that every state is reached and left, and that a step that
comes too late changes nothing."""

import itertools

import pytest

from snow_owl_tftp.client.transfer import NEXT, State, Step, Transfer
from snow_owl_tftp.plan.transfer import Role


def transfer(*steps: Step) -> Transfer:
    made = Transfer(Role.RECEIVER, "x", "octet", [])
    for step in steps:
        assert made.move(step), step
    return made


def reachable(start: State) -> set[State]:
    found, new = {start}, {start}
    while new:
        new = {after for (before, _), after in NEXT.items() if before in new} - found
        found |= new
    return found


def test_every_state_is_reached_and_ends():
    assert reachable(State.WAITING) == set(State)
    assert all(State.ENDED in reachable(state) for state in State)


def test_nothing_follows_the_end():
    assert not [step for state, step in NEXT if state is State.ENDED]


def test_every_step_happens_somewhere():
    assert {step for _, step in NEXT} == set(Step)


@pytest.mark.parametrize(("state", "step"), list(itertools.product(State, Step)))
def test_step_that_is_not_named_comes_too_late(state, step):
    made = transfer()
    made.state = state
    assert made.move(step) == ((state, step) in NEXT)
    assert made.state is NEXT.get((state, step), state)


def test_file_in_place_cannot_be_taken_back():
    made = transfer(Step.ASK, Step.RECEIVE, Step.DELIVER)
    assert not made.move(Step.CANCEL)
    withdrawn = transfer(Step.ASK, Step.ANSWER, Step.RECEIVE, Step.CANCEL)
    assert withdrawn.is_cancelled
    assert withdrawn.is_being_finished
    withdrawn.move(Step.DELIVER)
    assert withdrawn.state is State.DELIVERED
    assert not withdrawn.is_cancelled


def test_cancelled_transfer_that_fails_stays_cancelled():
    made = transfer(Step.ASK, Step.RECEIVE, Step.CANCEL, Step.FAIL)
    assert made.is_cancelled
    assert not made.is_being_finished


def test_only_an_attempt_of_which_nothing_was_received_is_followed_by_another():
    assert {state for state, step in NEXT if step is Step.RETRY} == {State.ASKED, State.LEFT, State.MISANSWERED}


def test_answer_after_its_attempt_was_left_is_ignored():
    made = transfer(Step.ASK, Step.LEAVE)
    assert not made.move(Step.ANSWER)
    assert made.move(Step.RECEIVE)  # a file that is here is not thrown away
