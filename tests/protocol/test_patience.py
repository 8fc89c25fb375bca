"""How long a client is waited for: the rules of protocol/patience.py, and what sender and receiver make of them."""

import pytest

from snow_owl_tftp.protocol.packets import build_ack, build_data
from snow_owl_tftp.protocol.patience import Patience
from snow_owl_tftp.protocol.rtt import RetransmitPolicy, RoundTrip
from snow_owl_tftp.protocol.transfer import Receiver, Sender, Terms

MS, S = 1_000_000, 1_000_000_000
POLICY = RetransmitPolicy()


def fast_path():
    rtt = RoundTrip(POLICY)
    for _ in range(10):
        rtt.sample(MS)
    return rtt


def sender(patience, blocks=100, windowsize=1, **terms):
    machine = Sender(bytes(8 * blocks - 3), Terms(b"", 8, windowsize, patience=patience, **terms))
    machine.start(0)
    return machine


def walk(machine, first, last, now_ns):
    """Lock-step, a millisecond a block; returns when the last ACK came."""
    for block in range(first, last + 1):
        now_ns += MS
        machine.receive(build_ack(block), now_ns)
    return now_ns


# --- the rules ---------------------------------------------------------------------------------------------


def test_an_unknown_client_is_waited_for_a_second_however_fast_its_path():
    assert Patience().rto_ns(fast_path(), POLICY, 0) == S


def test_a_slow_path_is_waited_for_longer_than_a_second():
    rtt = RoundTrip(POLICY)
    rtt.sample(900 * MS)
    assert Patience().rto_ns(rtt, POLICY, 0) == 2_700 * MS


def test_a_client_whose_path_loses_is_waited_for_about_a_round_trip():
    known = Patience()
    known.on_loss(POLICY)
    rtt = fast_path()
    assert known.rto_ns(rtt, POLICY, 0) == rtt.rto_ns < 12 * MS


def test_each_repetition_in_vain_doubles_the_wait_up_to_the_ceiling():
    assert [Patience().rto_ns(fast_path(), POLICY, retries) for retries in (0, 1, 2, 60)] == [S, 2 * S, 3 * S, 3 * S]


def test_a_pause_makes_patience_twice_as_long_as_itself():
    known = Patience()
    known.on_pause(1_200 * MS, POLICY)
    assert known.rto_ns(fast_path(), POLICY, 0) == 2_400 * MS
    known.on_pause(600 * MS, POLICY)
    assert known.pause_ns == 2_400 * MS, "the longest counts"
    known.on_pause(9 * S, POLICY)
    assert known.pause_ns == POLICY.ceiling_ns


def test_a_client_whose_path_loses_is_never_waited_for_longer_than_an_unknown_one():
    known = Patience()
    known.on_pause(9 * S, POLICY)
    known.on_loss(POLICY)
    assert known.pause_ns == S
    known.on_pause(9 * S, POLICY)
    assert known.pause_ns == S


def test_every_loss_takes_a_quarter_off_what_was_learned_from_pauses():
    known = Patience(loses=True, pause_ns=400 * MS)
    known.on_loss(POLICY)
    assert known.pause_ns == 300 * MS


def waits(known, count=7):
    """Until each repetition of a block in lock-step that nobody answers, in milliseconds."""
    machine = sender(known)
    now_ns, waits_ms = walk(machine, 1, 20, 0), []
    for _ in range(count):
        waits_ms.append((machine.deadline_ns - now_ns) // MS)
        now_ns = machine.deadline_ns
        machine.tick(now_ns)
    return waits_ms


def test_silence_that_is_common_on_a_path_does_not_double_the_timer_of_lock_step():
    assert waits(Patience(loses=True, silence=128)) == [11, 11, 11, 22, 44, 88, 176]
    assert waits(Patience(loses=True)) == [11, 22, 44, 88, 176, 352, 704]


def test_what_silence_is_worth_is_learned_from_the_blocks_that_it_met():
    known = Patience(loses=True)
    for _ in range(100):
        known.on_answer(1)
        known.on_answer(0)
        known.on_answer(0)
    assert 64 < known.silence < 128, "a third"
    for _ in range(100):
        known.on_answer(0)
    assert known.level == 1, "seldom"


def test_a_path_that_loses_nothing_and_a_window_and_a_first_packet_double_the_timer_as_ever():
    assert Patience(silence=255).level == 0
    known = Patience(loses=True, silence=255, srtt_ns=MS, rttvar_ns=0)
    machine = sender(known, windowsize=4)
    machine.receive(build_ack(4), MS)
    first_ns = machine.deadline_ns - MS
    machine.tick(machine.deadline_ns)
    assert machine.deadline_ns - machine.sent_ns == 2 * first_ns
    opening = Sender(bytes(50), Terms(b"\0\6oack", 8, patience=Patience(loses=True, silence=255, srtt_ns=MS)))
    opening.start(0)
    opening.tick(opening.deadline_ns)
    assert opening.deadline_ns - opening.sent_ns == 22 * MS


def test_a_pause_makes_silence_news_again():
    known = Patience(loses=True, silence=200)
    known.on_pause(100 * MS, POLICY)
    assert known.silence == 0


# --- what is taken for a loss, and what for a pause -----------------------------------------------------------


def test_a_repetition_that_is_answered_once_and_promptly_is_a_loss():
    known = Patience()
    machine = sender(known)
    now_ns = walk(machine, 1, 5, 0)
    now_ns = machine.deadline_ns
    machine.tick(now_ns)
    now_ns = walk(machine, 6, 6, now_ns)
    assert not known.loses, "its second answer may be on its way"
    walk(machine, 7, 7, now_ns)
    assert known.loses
    assert machine.rto_ns < 20 * MS


def test_a_repetition_that_is_answered_twice_was_a_pause():
    known = Patience()
    machine = sender(known)
    walk(machine, 1, 5, 0)
    again_ns = machine.deadline_ns
    machine.tick(again_ns)
    machine.receive(build_ack(6), again_ns + 300 * MS)
    machine.receive(build_ack(6), again_ns + 300 * MS)
    walk(machine, 7, 9, again_ns + 301 * MS)
    assert not known.loses
    assert known.pause_ns == 2 * (S + 300 * MS)


def test_a_late_answer_alone_is_neither():
    known = Patience()
    machine = sender(known)
    walk(machine, 1, 5, 0)
    again_ns = machine.deadline_ns
    machine.tick(again_ns)
    machine.receive(build_ack(6), again_ns + 300 * MS)
    walk(machine, 7, 9, again_ns + 301 * MS)
    assert known == Patience()


def test_two_timers_of_a_second_that_meet_prove_nothing():
    """The ACK was lost, and the client repeated it by its own timer just when we repeated the block."""
    known = Patience()
    machine = sender(known)
    walk(machine, 1, 5, 0)
    again_ns = machine.deadline_ns
    machine.tick(again_ns)
    machine.receive(build_ack(6), again_ns + MS)
    machine.receive(build_ack(6), again_ns + MS)
    walk(machine, 7, 9, again_ns + 2 * MS)
    assert known == Patience()


def test_a_gap_that_a_probe_brings_to_light_is_a_loss_at_once():
    known = Patience()
    machine = sender(known, windowsize=4)
    machine.receive(build_ack(4), MS)
    again_ns = machine.deadline_ns
    machine.tick(again_ns)
    machine.receive(build_ack(6), again_ns + MS)
    assert known.loses


def test_what_was_learned_begins_the_next_transfer():
    known = Patience(loses=True, srtt_ns=4 * MS, rttvar_ns=MS)
    machine = Sender(bytes(50), Terms(b"\0\6oack", 8, patience=known))
    machine.start(0)
    assert machine.deadline_ns == 14 * MS, "the OACK is repeated as soon as its round trip has passed"
    ignorant = Sender(bytes(50), Terms(b"\0\6oack", 8))
    ignorant.start(0)
    assert ignorant.deadline_ns == S


def test_a_transfer_leaves_its_round_trip_behind():
    known = Patience(loses=True)
    machine = sender(known, blocks=4)
    walk(machine, 1, 4, 0)
    assert (machine.done, known.srtt_ns) == (True, MS)


@pytest.mark.parametrize("loses", [False, True])
def test_a_receiver_in_lock_step_repeats_no_ack_within_a_second(loses):
    machine = Receiver(Terms(b"", 8, patience=Patience(loses=loses)))
    machine.start(0)
    for block in range(1, 9):
        machine.receive(build_data(block, bytes(8)), block * MS)
    assert machine.deadline_ns == 8 * MS + S


def test_a_negotiated_timeout_is_kept_whatever_is_known():
    for known in (Patience(), Patience(loses=True), Patience(pause_ns=2 * S)):
        machine = sender(known, timeout_ns=5 * S)
        assert machine.deadline_ns == 5 * S
