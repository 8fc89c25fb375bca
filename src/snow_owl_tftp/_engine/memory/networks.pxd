# What is known of networks, a /24 of IPv4 or a /56 of IPv6: do their clients hear what they are sent?
#
# Who forges an address does not see what its owner is sent: it guesses the TID, and when to acknowledge.  So every
# answer is evidence, in bits: how unlikely it was to be guessed.  An answer to a TID that was chosen among n is worth
# log2(n); an ACK as soon as usual after a block that was held back for one of several whiles is worth log2 of their
# number.  These differ by as much as usual answers do, not by as much as they take: a long way costs no more.  Until a
# network has shown PROOF_BITS it has a share of bytes, which fills slowly; what was certainly received is given back to
# it.  A wrong guess, or an ACK of what was not sent yet, takes share and evidence; an unusual answer takes a little.
#
# Bounded: sets of NETWORK_WAYS entries; the longest unheard of what is not proven gives way, then of what is.
# Must not: send, hold or end anything (worker/doubt.pxd does).

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

cdef enum:
    NETWORK_SETS = 1024
    NETWORK_WAYS = 4
    NETWORK_SECONDS = 3600        # how long a network stays proven (of 2^30 ns)
    STRANGE_SECONDS = 1200        # and how long after it was sent something one that is not stays in the table
    LEAST_FILL_BYTES = 256        # or what is rounded off would matter
    PROOF_BITS = 24               # by chance alone once in 3^12 starts; see DOUBT_PARTS for how many there are
    REFILL_BYTES_PER_S = 17476    # 1 MiB a minute
    FREE_PARTS = 4                # so much of its share a network is sent before anything is held back: most boots
    LARGE_PARTS = 64              # a window of more than such a part is tried from the first on
    TRIAL_BITS = 2                # a block is held back for one of 2^2 whiles
    LEAST_SLACK_NS = 500000
    TICK_NS = 1000000             # the wheel's: a hold ends no more precisely
    MOST_TRIALS = 16              # about so many at a time: a rack that boots must not spend its share untried
    DOUBT_PARTS = 256             # such a part of the share is what an unusual answer costs: there are not many trials
    LONGEST_HOLD_NS = 1000000000  # longer, and clients repeat their ACK

cdef struct Network:
    uint32_t hash
    uint32_t second               # when it was proven, or spoken to; of 2^30 ns and counted from 1; 0: unused
    uint32_t bits                 # of evidence
    uint32_t is_proven
    int64_t left_bytes            # of its share; below 0 by what was sent beyond it
    uint64_t filled_ns            # when the share was filled up last
    uint64_t turn_ns              # no trial begins before


cdef inline uint32_t network_second(uint64_t now_ns) noexcept nogil:
    return <uint32_t>(now_ns >> 30) + 1


cdef inline bint network_is_fresh(const Network *n, uint32_t second) noexcept nogil:
    return n.second != 0 and second - n.second < <uint32_t>(NETWORK_SECONDS if n.is_proven else STRANGE_SECONDS)


cdef inline Network *network_find(Network *networks, uint32_t hash, uint64_t now_ns) noexcept nogil:
    """What is known of a network; NULL: nothing."""
    cdef Network *entries = networks + (hash & (NETWORK_SETS - 1)) * NETWORK_WAYS
    cdef uint32_t i
    for i in range(<uint32_t>NETWORK_WAYS):
        if entries[i].hash == hash and network_is_fresh(&entries[i], network_second(now_ns)):
            return &entries[i]
    return NULL


cdef inline uint32_t network_worth(const Network *n, uint32_t second) noexcept nogil:
    """Who gives way: the least of these."""
    if not network_is_fresh(n, second):
        return 0
    return n.second | (<uint32_t>1 << 31 if n.is_proven else 0)


cdef inline Network *network_of(Network *networks, uint32_t hash, uint64_t now_ns, int64_t share_bytes,
                                uint64_t *replaced) noexcept nogil:
    """The entry of a network, made when it is missing; `replaced` counts those that gave way before their time."""
    cdef Network *entries = networks + (hash & (NETWORK_SETS - 1)) * NETWORK_WAYS
    cdef Network *n = network_find(networks, hash, now_ns)
    cdef uint32_t i, second = network_second(now_ns)
    if n != NULL:
        return n
    n = entries
    for i in range(1, <uint32_t>NETWORK_WAYS):
        if network_worth(&entries[i], second) < network_worth(n, second):
            n = &entries[i]
    replaced[0] += network_is_fresh(n, second)
    memset(n, 0, sizeof(Network))
    n.hash = hash
    n.second = second
    n.left_bytes = share_bytes
    n.filled_ns = now_ns
    return n


cdef inline void network_fill(Network *n, int64_t share_bytes, uint64_t now_ns) noexcept nogil:
    """Its share grows with time."""
    cdef uint64_t bytes = (now_ns - n.filled_ns) // 1000 * REFILL_BYTES_PER_S // 1000000
    if bytes < LEAST_FILL_BYTES:
        return
    n.filled_ns = now_ns
    if not n.is_proven:
        n.second = network_second(now_ns)
    n.left_bytes += <int64_t>bytes
    if n.left_bytes > share_bytes:
        n.left_bytes = share_bytes


cdef inline bint network_on_evidence(Network *n, uint32_t bits, uint64_t now_ns) noexcept nogil:
    """Its client did what a forger does once in 2^bits times.  True: that was the proof."""
    cdef bint was_proven = n.is_proven
    n.bits += bits
    if n.bits < PROOF_BITS:
        return False
    n.bits = 0
    n.is_proven = 1
    n.second = network_second(now_ns)
    return not was_proven


cdef inline void network_on_doubt(Network *n, uint32_t bits, int64_t share_bytes) noexcept nogil:
    """Its client did what a forger mostly does, and a client now and then."""
    n.bits -= bits if bits < n.bits else n.bits
    n.left_bytes -= share_bytes // DOUBT_PARTS


cdef inline void network_on_forgery(Network *n) noexcept nogil:
    """Somebody forged an address of it: it has had its share."""
    n.bits = 0
    if n.left_bytes > 0:
        n.left_bytes = 0


cdef inline uint64_t answer_slack_ns(uint64_t spread_ns) noexcept nogil:
    """How far from usual an answer may be, and still be the client's."""
    return 2 * spread_ns if 2 * spread_ns > LEAST_SLACK_NS else LEAST_SLACK_NS


cdef inline bint answer_is_usual(uint64_t answer_ns, uint64_t usual_ns, uint64_t slack_ns) noexcept nogil:
    cdef uint64_t middle_ns = usual_ns if usual_ns > slack_ns else slack_ns
    return middle_ns - slack_ns <= answer_ns <= middle_ns + slack_ns


cdef inline void learn_answer(uint64_t *usual_ns, uint64_t *spread_ns, uint64_t answer_ns) noexcept nogil:
    """What is usual, and the mean distance from it; one that is very late moves neither far."""
    cdef int64_t most_ns = 4 * <int64_t>answer_slack_ns(spread_ns[0])
    cdef int64_t off_ns = <int64_t>answer_ns - <int64_t>usual_ns[0]
    if usual_ns[0] == 0:
        usual_ns[0] = answer_ns + 1
        spread_ns[0] = answer_ns // 2            # so anything up to twice as long is usual at first
        return
    off_ns = most_ns if off_ns > most_ns else -most_ns if off_ns < -most_ns else off_ns
    usual_ns[0] += <uint64_t>(off_ns // 8)
    spread_ns[0] = (7 * spread_ns[0] + <uint64_t>(off_ns if off_ns > 0 else -off_ns)) // 8


cdef inline uint64_t trial_step_ns(uint64_t slack_ns) noexcept nogil:
    """A block is held back for none, one, two ... of these: no answer is usual after two of them, whenever it comes."""
    return 2 * slack_ns + TICK_NS


cdef inline bint network_takes_turn(Network *n, uint64_t usual_ns, uint64_t slack_ns, int64_t fit,
                                    uint64_t now_ns) noexcept nogil:
    """Whether one more of its transfers may be sent a window, of which so many fit into a share; else from turn_ns."""
    cdef uint64_t trials = fit // MOST_TRIALS if fit < MOST_TRIALS * MOST_TRIALS else MOST_TRIALS
    if now_ns < n.turn_ns:
        return False
    n.turn_ns = now_ns + (usual_ns + (trial_step_ns(slack_ns) << TRIAL_BITS) // 2) // (trials if trials else 1)
    return True


cdef inline uint32_t trial_bits(uint64_t slack_ns) noexcept nogil:
    """What a usual answer is worth in a trial; 0: a client so erratic cannot be tried."""
    cdef uint32_t bits = TRIAL_BITS
    while bits and trial_step_ns(slack_ns) << bits > LONGEST_HOLD_NS:
        bits -= 1
    return bits
