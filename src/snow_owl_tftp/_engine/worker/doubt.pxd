# Who does not hear us: what a network that has shown nothing yet may be sent, and how its clients show it.
#
# The table and its arithmetic are in memory/networks.pxd; here transfers are held back, tried and ended by them.
# A transfer is held back (HELD_...) without a word: its deadline brings it back.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.messages cimport OUT_ABORTED
from snow_owl_tftp._engine.base.peers cimport network_hash
from snow_owl_tftp._engine.base.transfer cimport HELD_CAPPED, HELD_EMPTYING, HELD_NOT, HELD_TRIAL, Transfer
from snow_owl_tftp._engine.memory.guesses cimport guesses_note
from snow_owl_tftp._engine.memory.networks cimport (
    FREE_PARTS, LARGE_PARTS, Network, answer_is_usual, answer_slack_ns, learn_answer, network_fill, network_find,
    network_of, network_on_doubt, network_on_evidence, network_on_forgery, network_takes_turn, trial_bits,
    trial_step_ns)
from snow_owl_tftp._engine.protocol.seq cimport seq_index_from
from snow_owl_tftp._engine.protocol.window cimport SENDER
from snow_owl_tftp._engine.worker.life cimport end
from snow_owl_tftp._engine.worker.pacing cimport hold
from snow_owl_tftp._engine.worker.state cimport Q_NONE, Worker
from snow_owl_tftp._engine.worker.tids cimport random_below

cdef enum:
    EMPTYING_ANSWERS = 8          # how long all that was sent may take to be acknowledged, in usual answers
    CAPPED_NS = 16000000          # how soon it is looked again whether a network's share has grown


cdef inline Network *network_entry(Worker *w, uint32_t hash) noexcept nogil:
    return network_of(w.networks, hash, w.now_ns, w.limits.network_bytes, &w.counters.networks_replaced)


cdef inline void note_guess(Worker *w, const Peer *peer) noexcept nogil:
    """A TID was guessed wrongly in the name of this address."""
    guesses_note(&w.guesses, peer, w.now_ns)
    if w.limits.network_bytes:
        network_on_forgery(network_entry(w, network_hash(peer, w.secret)))


cdef inline void doubt(Worker *w, Transfer *t) noexcept nogil:
    """Whether the network of a new transfer has shown already that it hears us."""
    cdef Network *n
    if not w.limits.network_bytes:
        return
    t.hash_network = network_hash(&t.peer, w.secret)
    n = network_find(w.networks, t.hash_network, w.now_ns)
    t.doubted = t.flight.role == SENDER and (n == NULL or not n.is_proven)


cdef inline void note_evidence(Worker *w, Network *n, uint32_t bits) noexcept nogil:
    w.counters.networks_proven += network_on_evidence(n, bits, w.now_ns)


cdef inline bint share_is_spent(Worker *w, Transfer *t) noexcept nogil:
    """Whether the network of a transfer has had its share; then the transfer waits.

    Who has answered nothing is sent its first packets all the same: these are few.
    """
    cdef Network *n = network_entry(w, t.hash_network)
    if n.is_proven:
        t.doubted = 0
        return False
    network_fill(n, w.limits.network_bytes, w.now_ns)
    return n.left_bytes <= 0 and t.flight.proven


cdef inline int64_t window_bytes(const Transfer *t) noexcept nogil:
    return <int64_t>t.flight.windowsize * (t.flight.blksize_bytes + 4)


cdef inline bint takes_turn(Worker *w, Transfer *t, Network *n) noexcept nogil:
    return network_takes_turn(n, t.answer_ns, answer_slack_ns(t.answer_spread_ns),
                              w.limits.network_bytes // window_bytes(t), w.now_ns)


cdef inline bint is_too_early(Worker *w, Transfer *t, uint16_t block) noexcept nogil:
    """An ACK of a block of the window that was not sent yet: no client's.  The transfer has ended then."""
    cdef int64_t acked
    if t.flight.opening:
        return False
    acked = seq_index_from(t.flight.window_base - 1, block, t.flight.rollover)
    if acked < t.flight.sent_end or acked >= t.flight.window_base + t.flight.windowsize:
        return False
    w.counters.acks_too_early += 1
    note_guess(w, &t.peer)
    end(w, t, OUT_ABORTED, 0, b"an ACK came before its block was sent", 37)
    return True


cdef inline void judge_answer(Worker *w, Transfer *t, bint is_whole, uint64_t answer_ns) noexcept nogil:
    """The peer has acknowledged all that was sent, the last of it so long ago; or a part, the first so long ago."""
    cdef Network *n
    if t.trial_ns:
        n = network_entry(w, t.hash_network)
        if answer_is_usual(answer_ns, t.answer_ns, t.trial_ns):
            n.left_bytes += t.trial_bytes        # at most what was taken: somebody got it
            note_evidence(w, n, trial_bits(t.trial_ns))
        else:
            network_on_doubt(n, trial_bits(t.trial_ns), w.limits.network_bytes)
    t.trial_ns = 0
    if is_whole:
        learn_answer(&t.answer_ns, &t.answer_spread_ns, answer_ns)


cdef inline bint hold_for_trial(Worker *w, Transfer *t) noexcept nogil:
    """Holds back for a random while what follows; not if nothing is known of the client, or it is too erratic."""
    cdef uint64_t slack_ns = answer_slack_ns(t.answer_spread_ns)
    if t.answer_ns == 0 or trial_bits(slack_ns) == 0 or t.flight.window_base != t.flight.sent_end:
        return False
    w.counters.sends_tried += 1
    t.trial_ns = slack_ns
    t.trial_bytes = 0
    hold(w, t, HELD_TRIAL, trial_step_ns(slack_ns) * random_below(w, <uint32_t>1 << trial_bits(slack_ns)))
    return True


cdef inline bint try_answer(Worker *w, Transfer *t, bint is_report) noexcept nogil:
    """Whether what may be sent next is held back for a random while, to see whether its ACK waits for it.

    First everything must be acknowledged: there are clients that acknowledge within the window.
    """
    cdef uint64_t slack_ns
    cdef int64_t share_bytes = w.limits.network_bytes
    cdef Network *n = network_entry(w, t.hash_network)
    if t.answer_ns == 0 and t.flight.rtt.srtt_ns:
        learn_answer(&t.answer_ns, &t.answer_spread_ns, t.flight.rtt.srtt_ns)  # that to the options
    slack_ns = answer_slack_ns(t.answer_spread_ns)
    if t.held == HELD_EMPTYING and (is_report or t.flight.window_base == t.flight.sent_end):
        t.held = HELD_NOT
    if t.held:
        t.flight.deadline_ns = t.held_until_ns   # an ACK has moved it
        return True
    if n.is_proven or t.queued != Q_NONE or is_report:
        return False
    if window_bytes(t) <= share_bytes // LARGE_PARTS and n.left_bytes > share_bytes - share_bytes // FREE_PARTS:
        return False
    if n.left_bytes <= 0 or trial_bits(slack_ns) == 0:
        return False
    if t.flight.window_base != t.flight.sent_end:
        hold(w, t, HELD_EMPTYING, EMPTYING_ANSWERS * (t.answer_ns + slack_ns))
        return True
    if not takes_turn(w, t, n):
        hold(w, t, HELD_CAPPED, n.turn_ns - w.now_ns)
        return True
    return hold_for_trial(w, t)
