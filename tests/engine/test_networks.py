"""What a worker knows of networks: shares, evidence, and who gives way, over numbers alone."""

import math
import random

from snow_owl_tftp._engine import probe

SECOND_NS = 1 << 30
SHARE = 1 << 20


def test_a_share_is_spent_and_fills_by_a_mebibyte_a_minute():
    networks = probe.NetworksProbe(SHARE)
    assert networks.spend(1, 0, SHARE + 5000) == -5000
    assert networks.spend(2, 0, 0) == SHARE, "the next network has its own"
    after_s = 30
    assert abs(networks.spend(1, after_s * 10**9, 0) - (SHARE // 2 - 5000)) < 200
    assert networks.spend(1, 600 * 10**9, 0) == SHARE


def test_many_short_looks_fill_it_as_fast_as_one():
    networks = probe.NetworksProbe(SHARE)
    networks.spend(1, 0, SHARE)
    for step in range(1, 10_000):
        left = networks.spend(1, step * 100_000, 0)
    assert left > 0.95 * 17_476


def test_evidence_adds_up_to_a_proof_that_holds_for_an_hour():
    networks = probe.NetworksProbe(SHARE)
    assert [networks.evidence(1, 0, 3) for _ in range(8)] == [False] * 7 + [True]
    assert networks.is_proven(1, 3599 * SECOND_NS)
    assert not networks.is_proven(1, 3600 * SECOND_NS)
    assert not networks.is_proven(2, 0)
    # Shown again meanwhile, it holds longer, and is no news.
    assert not any(networks.evidence(1, 3000 * SECOND_NS, 3) for _ in range(8))
    assert networks.is_proven(1, 6599 * SECOND_NS)


def test_what_is_late_takes_as_much_as_what_is_in_time_gives_and_a_forgery_takes_all():
    networks = probe.NetworksProbe(SHARE)
    networks.doubt(1, 0, 3)
    for _ in range(7):
        networks.evidence(1, 0, 3)
    networks.doubt(1, 0, 3)
    assert not networks.evidence(1, 0, 3)
    networks.forgery(1, 0)
    assert networks.spend(1, 0, 0) == 0
    assert [networks.evidence(1, 0, 3) for _ in range(8)] == [False] * 7 + [True]
    networks.forgery(1, 0)
    assert networks.is_proven(1, 0)


def test_a_forger_that_is_never_early_and_hits_by_chance_proves_nothing():
    """One in eight in time, the others late: a million trials."""
    rng = random.Random(20)
    networks = probe.NetworksProbe(SHARE)
    for _ in range(1_000_000):
        if rng.random() < 1 / 8:
            assert not networks.evidence(1, 0, 3)
        else:
            networks.doubt(1, 0, 3)


def test_a_trial_is_as_many_times_longer_than_an_answer_as_its_bits_say():
    for usual_ns in (0, 1000, 200_000, 2_000_000, 20_000_000, 100_000_000, 240_000_000):
        answer_ns, longest_ns, bits = probe.trial_of(usual_ns)
        assert answer_ns >= max(2 * usual_ns, 1_000_000)
        assert longest_ns <= 10**9
        assert bits >= 1
        # The wheel adds up to a tick of a millisecond to the while in which a blind ACK counts.
        assert math.log2(longest_ns / (answer_ns + 1_000_000)) >= bits
    assert probe.trial_of(300_000_000)[2] == 0


def test_of_a_full_set_the_oldest_without_a_proof_gives_way():
    networks = probe.NetworksProbe(SHARE)
    one_set = [1024 * i + 9 for i in range(6)]
    for i, network in enumerate(one_set[:4]):
        networks.spend(network, i * SECOND_NS, 0)
    networks.evidence(one_set[0], 4 * SECOND_NS, 24)
    networks.spend(one_set[4], 5 * SECOND_NS, 0)
    networks.spend(one_set[5], 6 * SECOND_NS, 0)
    assert [networks.is_known(network, 7 * SECOND_NS) for network in one_set] == [True, False, False, True, True, True]
    assert networks.replaced == 2
    # What is too old makes room without a loss.
    networks.spend(one_set[1], 1300 * SECOND_NS, 0)
    assert networks.replaced == 2
    assert networks.is_proven(one_set[0], 1300 * SECOND_NS)
