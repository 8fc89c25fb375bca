"""What a worker knows of networks: shares, evidence, and who gives way, over numbers alone."""

import random

import pytest

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


def test_what_is_unusual_takes_bits_and_a_little_of_the_share_and_a_forgery_takes_all():
    networks = probe.NetworksProbe(SHARE)
    networks.doubt(1, 0, 2)
    for _ in range(11):
        networks.evidence(1, 0, 2)
    networks.doubt(1, 0, 2)
    assert not networks.evidence(1, 0, 2)
    assert networks.spend(1, 0, 0) == SHARE - 2 * (SHARE // 256)
    networks.forgery(1, 0)
    assert networks.spend(1, 0, 0) == 0
    assert [networks.evidence(1, 0, 2) for _ in range(12)] == [False] * 11 + [True]
    networks.forgery(1, 0)
    assert networks.is_proven(1, 0)


def test_a_forger_that_is_never_early_and_hits_by_chance_has_spent_its_share_before_it_proves_anything():
    """Two hundred of them; one answer in four looks usual, and each that does not costs a 256th of the share."""
    rng = random.Random(20)
    for network in range(200):
        networks = probe.NetworksProbe(SHARE)
        trials = 0
        while networks.spend(network, 0, 0) > 0:
            trials += 1
            if rng.random() < 1 / 4:
                assert not networks.evidence(network, 0, 2)
            else:
                networks.doubt(network, 0, 2)
        assert 256 <= trials < 500


def test_no_moment_is_usual_after_two_of_the_whiles():
    """Whatever a client has made usual, and however it varies; the wheel adds up to a tick to each while."""
    rng = random.Random(3)
    for _ in range(20_000):
        spread_ns, usual_ns = int(rng.expovariate(1) * 2e6), int(rng.expovariate(1) * 2e7)
        slack_ns, step_ns, bits = probe.trial_of(spread_ns)
        at_ns = int(rng.random() * (step_ns << bits)) + usual_ns
        holds = [step_ns * i + rng.randrange(1_000_000) for i in range(1 << bits)]
        assert sum(at_ns >= hold and probe.is_usual(at_ns - hold, usual_ns, slack_ns) for hold in holds) <= 1


def test_whiles_follow_how_answers_differ_and_end_in_a_second():
    assert probe.trial_of(0) == (500_000, 2_000_000, 2)
    assert probe.trial_of(1_000_000) == (2_000_000, 5_000_000, 2)
    for spread_ns in range(0, 10**9, 7_654_321):
        _, step_ns, bits = probe.trial_of(spread_ns)
        assert bits == 0 or step_ns << bits <= 10**9
    assert probe.trial_of(200_000_000)[2] == 0


def test_what_is_usual_is_learned_and_one_late_answer_moves_it_little():
    usual_ns = spread_ns = 0
    for _ in range(100):
        usual_ns, spread_ns = probe.learn(usual_ns, spread_ns, 50_000_000)
    assert abs(usual_ns - 50_000_000) < 10
    assert spread_ns < 10_000
    usual_ns, spread_ns = probe.learn(usual_ns, spread_ns, 9_000_000_000)
    assert usual_ns < 50_400_000
    assert spread_ns < 400_000
    for _ in range(60):
        usual_ns, spread_ns = probe.learn(usual_ns, spread_ns, 5_000_000)
    assert abs(usual_ns - 5_000_000) < 3_000_000, "a way that became shorter"


class Lone:
    """A first client that takes 100 MB from a share of 16 MiB: how long it is held back in all, in virtual time."""

    share_bytes = 16 << 20
    file_bytes = 100_000_000

    def __init__(self, seed, windowsize, rtt_ns, jitter_ns, loss):
        self.rng = random.Random(repr((seed, windowsize, rtt_ns, jitter_ns, loss)))
        self.networks = probe.NetworksProbe(self.share_bytes)
        self.window_bytes = windowsize * 1432
        self.rtt_ns, self.jitter_ns = rtt_ns, jitter_ns
        self.whole = (1 - loss) ** windowsize
        self.usual_ns = self.spread_ns = self.held_ns = 0
        self.proven = False

    def answer_ns(self):
        return self.rtt_ns + 50_000 + int(self.rng.random() * self.jitter_ns)

    def window(self):
        left_bytes = self.networks.spend(1, 0, self.window_bytes)
        assert left_bytes + self.window_bytes > 0, "its share is spent"
        is_tried = left_bytes <= self.share_bytes * 3 // 4
        slack_ns, step_ns, bits = probe.trial_of(self.spread_ns)
        if is_tried:
            self.held_ns += step_ns * self.rng.randrange(1 << bits) + self.rng.randrange(1_000_000)
        if self.rng.random() >= self.whole:
            return  # asked for again: no evidence
        answer_ns = self.answer_ns()
        if is_tried and probe.is_usual(answer_ns, self.usual_ns, slack_ns):
            self.networks.spend(1, 0, -self.window_bytes)
            self.proven = self.networks.evidence(1, 0, bits)
        elif is_tried:
            self.networks.doubt(1, 0, bits)
        self.usual_ns, self.spread_ns = probe.learn(self.usual_ns, self.spread_ns, answer_ns)

    def run(self):
        for _ in range(self.file_bytes // self.window_bytes):
            self.window()
            if self.proven:
                return self.held_ns
        raise AssertionError("nothing was proven")


@pytest.mark.parametrize("windowsize", [1, 8, 16, 64])
@pytest.mark.parametrize("rtt_ms", [0, 5, 50])
@pytest.mark.parametrize(
    ("jitter_ms", "loss", "most_ms"), [(0, 0, 100), (1, 0, 150), (0.2, 0.01, 600), (3, 0, 300), (10, 0.01, 1500)]
)
def test_a_lone_first_client_is_held_back_little_and_never_runs_dry(windowsize, rtt_ms, jitter_ms, loss, most_ms):
    """Whatever the round trip; answers that differ by more than a few milliseconds cost more."""
    held_ms = sorted(
        Lone(seed, windowsize, int(rtt_ms * 1e6), int(jitter_ms * 1e6), loss).run() / 1e6 for seed in range(50)
    )
    assert held_ms[-1] <= most_ms
    assert held_ms[25] <= most_ms / 1.5


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
