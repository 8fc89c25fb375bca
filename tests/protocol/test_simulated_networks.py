"""The law of a transfer over simulated networks: patience where nothing is lost, and goodput where something is.

Model clients, model paths, virtual time: minutes of weather pass in no time, and the same seeds give the same result
anywhere. The whole of it, with more seeds and as tables, is `benchmarks/simulate.py`. The bars, and why:
- On a path that loses nothing, nothing is sent twice within a second (or the negotiated `timeout`): a boot ROM takes
  the second copy for the next block.
- A window is sent again at most once for each datagram that was lost.
- A window is never slower than lock-step on the same path: else the client had better not asked for it.
- A receiver of RFC 7440 discards what is out of order, so on a path that reorders less must be in flight.
- Of what a sender reaches whose timer is always exactly right (`oracle.Prompt`), at least 0.8, once it knows the
  client; what falls short, and why, is said beside the bars in `measure`. Asked at
  a round trip of 20 ms: the timer's margin of 10 ms is most of what a shorter one takes.
"""

from dataclasses import replace

import pytest
from tests.support.simulation.cases import (
    WINDOWS,
    jittery,
    last_acks_lost,
    lossy,
    lossy_uploads,
    narrow,
    odd_clients,
    path,
    patient,
    patient_uploads,
    reordering,
    small_buffers,
)
from tests.support.simulation.machines import Agreed
from tests.support.simulation.measure import (
    OF_PROMPT,
    OF_PROMPT_LOSSY,
    OF_PROMPT_SHORT,
    measure_beside_oracles,
    measure_read,
    measure_write,
    missed_by_read,
    missed_by_write,
)
from tests.support.simulation.network import MS, Clock, S
from tests.support.simulation.oracle import Clairvoyant, Prompt
from tests.support.simulation.play import Case, Path, ideal, read
from tests.support.simulation.readers import Gaps, Habits, Reader

from snow_owl_tftp.protocol.packets import build_ack, build_data

SEEDS = (1, 2)
REORDERING_SEEDS = (1, 2, 3, 4)
"""Of one path that reorders by 100 ms a transfer takes 9 s with one seed and 21 with the next."""
GOODPUT_SEEDS = (1, 2, 3, 4, 5, 6)
HEAVY_LOSS = 0.2
# The tables have the rest.
CHOSEN_PATHS = ("rtt 1;", "rtt 20, jitter 20", "rtt 2, loss 20%", "rtt 2, reordering 5 ms, loss 1%", "rtt 20, loss 5%")


def named(cases, blocks=None):
    """Parameters of a test, with ids that say what is played; short files where that is enough."""
    cases = [replace(case, blocks=min(case.blocks, blocks or case.blocks)) for case in cases]
    return [pytest.param(case, id=f"{case.name}, window {case.agreed.windowsize}") for case in cases]


def light_loss():
    return (case for case in lossy() if case.path.down.delay_ns == 10 * MS and case.path.down.loss < HEAVY_LOSS)


def check_bars(case, seeds):
    row = measure_read(case, seeds)
    assert missed_by_read(row) == [], f"{row.real}\nlock-step: {row.lock_step}"


def first_copy(block_index):
    """The number of the datagram that carries it first: the OACK is the first."""
    return (block_index + 1,)


def one_gap(agreed, habits, lost_numbers):
    lossy_path = Path(replace(path(20).down, lost_numbers=lost_numbers), path(20).up)
    return Case("a gap", lossy_path, agreed, habits, blocks=40, transfers=1)


def check_without_timer(case):
    (played,), (prompt,) = read(case, 1), ideal(case, 1, Prompt)
    assert played.damaged == len(case.path.down.lost_numbers)
    assert played.timeouts == 0
    assert played.took_ns <= prompt.took_ns


# --- patience: a slow client is not a lossy path -----------------------------------------------------------


@pytest.mark.parametrize("case", named(patient(), 120))
def test_nothing_is_sent_twice_within_a_second_where_nothing_is_lost(case):
    for played in read(case, 1):
        assert played.arrived
        assert played.ended_well
        assert played.damaged == 0
        assert played.early == 0


@pytest.mark.parametrize("case", named(patient_uploads(), 60))
def test_no_ack_is_repeated_within_a_second_where_nothing_is_lost(case):
    assert missed_by_write(case, measure_write(case, (1,))) == []


# --- loss --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", named(lossy(), 200))
def test_a_window_is_sent_again_at_most_once_a_loss_and_is_no_slower_than_lock_step(case):
    check_bars(case, SEEDS)


@pytest.mark.parametrize("gaps", [Gaps.ONCE, Gaps.ALWAYS])
@pytest.mark.parametrize("timeout_s", [0, 3])
@pytest.mark.parametrize("first_pause_ms", [0, 50, 300])
@pytest.mark.parametrize("lost_block", [1, 2, 7])
def test_a_reported_gap_is_filled_without_a_timer(gaps, timeout_s, first_pause_ms, lost_block):
    habits = Habits(gaps=gaps, first_pause_ns=first_pause_ms * MS)
    case = one_gap(Agreed(8, timeout_s=timeout_s), habits, first_copy(lost_block))
    check_without_timer(case)


@pytest.mark.parametrize("timeout_s", [0, 3])
@pytest.mark.parametrize("lost_block", [1, 2, 7])
def test_a_gap_that_is_reported_again_is_filled_again_without_a_timer(timeout_s, lost_block):
    # The window is the OACK's follower, numbers 2 to 9; sent again it begins with the lost block, as number 10.
    once = one_gap(Agreed(8, timeout_s=timeout_s), Habits(gaps=Gaps.ALWAYS), first_copy(lost_block))
    twice = one_gap(once.agreed, once.habits, (*first_copy(lost_block), 10))
    (played,), (prompt,) = read(twice, 1), ideal(once, 1, Prompt)
    assert (played.damaged, played.timeouts) == (2, 0)
    # The oracle's number 10 would be another block: it has lost this one once. The second time costs a round trip.
    assert played.took_ns <= prompt.took_ns + 20 * MS


@pytest.mark.parametrize("windowsize", [1, 4, 16])
def test_a_client_that_is_slow_to_answer_the_oack_is_not_slow_for_the_rest(windowsize):
    prompt_one = Case("5 % loss", path(2, loss=0.05), Agreed(windowsize), blocks=300, transfers=1)
    slow_one = replace(prompt_one, habits=Habits(first_pause_ns=2 * S))
    for seed in SEEDS:
        (prompt,), (slow,) = read(prompt_one, seed), read(slow_one, seed)
        # Its pause, a second for the first loss of a client whose timer nobody knows, and one of its own timer:
        # where a report is lost, it may be all that makes it speak again.
        assert slow.took_ns <= 2 * prompt.took_ns + 4 * S


@pytest.mark.parametrize("case", named((*light_loss(), *jittery()), 300))
def test_goodput_of_a_known_client_is_near_that_of_a_perfect_timer(case):
    reached = measure_beside_oracles(replace(case, transfers=3), GOODPUT_SEEDS).of_prompt
    is_short = case.agreed.windowsize == max(WINDOWS) or case.path.down.burst
    assert reached >= (OF_PROMPT_SHORT if is_short else OF_PROMPT_LOSSY if case.path.down.loss > 0.01 else OF_PROMPT)


def test_lock_step_reaches_as_much_where_every_fifth_datagram_is_lost():
    case = Case("20 % loss", path(20, loss=HEAVY_LOSS), Agreed(1), blocks=300, transfers=3)
    assert measure_beside_oracles(case, GOODPUT_SEEDS).of_prompt >= OF_PROMPT


@pytest.mark.parametrize("case", named(lossy_uploads(), 100))
def test_uploads_arrive_through_loss_whatever_the_timer_of_their_sender(case):
    assert measure_write(case, SEEDS).failed == 0


@pytest.mark.parametrize("case", named(last_acks_lost()))
def test_a_lost_last_ack_is_repeated_for_a_sender_with_a_slow_timer(case):
    assert measure_write(case, (1,)).failed == 0


# --- paths that reorder, small queues and small buffers ----------------------------------------------------


@pytest.mark.parametrize("case", named(reordering(), 120))
def test_a_path_that_reorders_is_no_storm_and_no_slower_than_lock_step(case):
    check_bars(case, REORDERING_SEEDS)


@pytest.mark.parametrize("case", named(narrow(), 200))
def test_a_window_larger_than_a_queue_is_no_slower_than_lock_step(case):
    check_bars(case, (1,))


@pytest.mark.parametrize("case", named(small_buffers()))
def test_a_window_larger_than_the_clients_buffer_costs_no_timeouts(case):
    check_bars(replace(case, transfers=1), (1,))


# --- clients that report gaps once, always or never, and acknowledge each window, block or pair ------------


@pytest.mark.parametrize("case", named((case for case in odd_clients() if case.name.startswith(CHOSEN_PATHS)), 120))
def test_odd_clients_are_served_no_slower_than_in_lock_step(case):
    check_bars(case, SEEDS)


# --- the instrument itself: a bar that nothing can miss measures nothing -----------------------------------


@pytest.mark.parametrize("kind", [Clairvoyant, Prompt])
@pytest.mark.parametrize("windowsize", [1, 4, 16])
def test_an_oracle_takes_one_round_trip_a_window_on_a_clean_path(kind, windowsize):
    case = Case("clean", path(20), Agreed(windowsize), blocks=96)
    (played, _) = ideal(case, 1, kind)
    # One for the OACK; the last window need not be acknowledged for the client to have it.
    assert played.took_ns == (1 + 96 // windowsize) * 20 * MS - 10 * MS
    assert (played.sent, played.arrived) == (96, True)


def test_loss_costs_the_clairvoyant_only_lost_acks_and_the_prompt_a_round_trip_each():
    down_only = replace(path(20, loss=0.05), up=path(20).up)
    case = Case("loss of DATA", down_only, Agreed(1), blocks=200)
    (all_knowing, _), (prompt, _) = ideal(case, 1, Clairvoyant), ideal(case, 1, Prompt)
    clean_ns = 201 * 20 * MS - 10 * MS
    assert all_knowing.took_ns == clean_ns
    assert prompt.damaged > 0
    assert prompt.took_ns == clean_ns + prompt.damaged * 20 * MS


def test_the_clairvoyant_overruns_no_queue_and_no_buffer():
    for case in (*narrow(), *small_buffers()):
        if not case.path.down.loss:
            (played, *_) = ideal(replace(case, blocks=300, transfers=1), 1, Clairvoyant)
            assert played.damaged == 0
            assert played.sent == 300


@pytest.mark.parametrize(("gaps", "acks"), [(Gaps.ONCE, [1, 6]), (Gaps.ALWAYS, [1, 1, 1, 6]), (Gaps.NEVER, [5])])
def test_a_reader_reports_a_gap_as_often_as_its_habit_says(gaps, acks):
    sent = []
    reader = Reader(Clock(), Habits(gaps=gaps), 5, 8, sent.append)
    for block in (1, 3, 4, 5, 2, 3, 4, 5, 6):
        reader.arrive(build_data(block, b"8 bytes!"))
    assert sent == [build_ack(block) for block in acks]


def test_the_same_seed_plays_the_same_transfer():
    case = Case("loss", path(20, 5, loss=0.1), Agreed(16), blocks=100)
    assert read(case, 7) == read(case, 7)
    assert read(case, 7) != read(case, 8)
