# How often anybody may ask, and what may be answered to who has shown nothing yet.
#
#   request ─► over_rate() ─► taken, or refused            buckets of its client, its network, of all
#   request ─► over_rule() ─► taken, or refused            its client's account by a rule
#   answer  ─► is_withheld() ─► sent, or not at all        a bucket of all whose networks are unknown
#
# Unknown is a network of which no transfer has ended well within the hour: its addresses may be forged.  All unknown
# ones together get half of what there is in all, so a flood from addresses that nobody has leaves the other half to
# those who are served here every day.
#
# Must not: refuse, send or end anything.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.accounts cimport ACCOUNT_GRANTS, ACCOUNT_REQUESTS, account_ask
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.peers cimport address_hash, network_hash
from snow_owl_tftp._engine.base.quotas cimport ClientLimits, OF_ALL, OF_CLIENT, OF_NETWORK, Quotas
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.memory.buckets cimport Bucket, bucket_of
from snow_owl_tftp._engine.memory.history cimport history_has
from snow_owl_tftp._engine.protocol.bucket cimport (
    owl_bucket_cost_ns, owl_bucket_look_shared, owl_bucket_take, owl_bucket_take_shared, owl_bucket_wait_ns)
from snow_owl_tftp._engine.worker.state cimport (
    REFUSED_CLIENT_REQUESTS, REFUSED_CLIENT_TRANSFERS, REFUSED_NETWORK_REQUESTS, REFUSED_REQUESTS,
    REFUSED_RULE_REQUESTS, REFUSED_RULE_TRANSFERS, REFUSED_UNPROVEN, Worker)


cdef enum:
    FIRST_BYTES = 516             # DATA 1 without options: who could not be sent that is not asked about


cdef inline void note_reached(Worker *w, int reason, const Peer *peer) noexcept nogil:
    """A limit was reached, REFUSED_... or PACED: tell_refusals() tells of it."""
    if w.refusals.by_reason[reason].count == 0:
        w.refusals.untold += 1
    w.refusals.by_reason[reason].count += 1
    w.refusals.by_reason[reason].last = peer[0]


cdef inline Bucket *client_bucket(Worker *w, const Peer *peer, uint32_t rule) noexcept nogil:
    """By a rule (0: by none) it has buckets of their own."""
    cdef uint8_t address[16]
    cdef uint32_t hash = address_hash(peer, w.secret, address) + rule * <uint32_t>0x9E3779B1
    return bucket_of(&w.client_buckets, hash, w.now_ns, &w.counters.buckets_replaced)


cdef inline Bucket *network_bucket(Worker *w, const Peer *peer) noexcept nogil:
    return bucket_of(&w.network_buckets, network_hash(peer, w.secret), w.now_ns, &w.counters.buckets_replaced)


cdef inline bint is_unknown(Worker *w, const Peer *peer) noexcept nogil:
    return not history_has(&w.history, peer, w.now_ns)


cdef inline bint has_one(Worker *w, const Bucket *b, uint64_t rate) noexcept nogil:
    return owl_bucket_wait_ns(b.requests_ns, owl_bucket_cost_ns(1, rate), w.now_ns) == 0


cdef inline int over_rate(Worker *w, const Peer *peer) noexcept nogil:
    """Why this request is not taken now, REFUSED_...; -1: it is, and every bucket has one token less."""
    cdef const Quotas *q = &w.quotas
    cdef Bucket *client = client_bucket(w, peer, 0) if q.requests_per_s[OF_CLIENT] else NULL
    cdef Bucket *network = network_bucket(w, peer) if q.requests_per_s[OF_NETWORK] else NULL
    if client != NULL and not has_one(w, client, q.requests_per_s[OF_CLIENT]):
        return REFUSED_CLIENT_REQUESTS
    if network != NULL and not has_one(w, network, q.requests_per_s[OF_NETWORK]):
        return REFUSED_NETWORK_REQUESTS
    if (q.requests_per_s[OF_ALL] or q.unproven_bytes_per_s) and is_unknown(w, peer):
        if q.unproven_bytes_per_s and owl_bucket_look_shared(&w.shared.unproven_ns, FIRST_BYTES,
                                                             q.unproven_bytes_per_s, w.now_ns):
            return REFUSED_UNPROVEN
        if q.requests_per_s[OF_ALL] and owl_bucket_take_shared(
                &w.shared.unknown_requests_ns, 1, (q.requests_per_s[OF_ALL] + 1) // 2, w.now_ns, True):
            return REFUSED_REQUESTS
    if q.requests_per_s[OF_ALL] and owl_bucket_take_shared(&w.shared.requests_ns, 1, q.requests_per_s[OF_ALL],
                                                           w.now_ns, True):
        return REFUSED_REQUESTS
    if client != NULL:
        owl_bucket_take(&client.requests_ns, 1, q.requests_per_s[OF_CLIENT], w.now_ns, False)
    if network != NULL:
        owl_bucket_take(&network.requests_ns, 1, q.requests_per_s[OF_NETWORK], w.now_ns, False)
    return -1


cdef inline int reason_by_rule(const ClientLimits *limits, int answer) noexcept nogil:
    """What a client is refused for, of ACCOUNT_REQUESTS or _TRANSFERS: by no rule it is what holds for every client."""
    if answer == ACCOUNT_REQUESTS:
        return REFUSED_RULE_REQUESTS if limits.rule else REFUSED_CLIENT_REQUESTS
    return REFUSED_RULE_TRANSFERS if limits.rule else REFUSED_CLIENT_TRANSFERS


cdef inline int over_rule(Worker *w, const Peer *peer, const ClientLimits *limits) noexcept nogil:
    """Why a client may not ask now by a rule, REFUSED_...; -1: it may, and has one token less."""
    cdef int answer = account_ask(w.accounts, peer, limits, w.now_ns)
    return -1 if answer == ACCOUNT_GRANTS else reason_by_rule(limits, answer)


cdef inline bint is_beyond_share(Worker *w, uint32_t size) noexcept nogil:
    """Whether so many bytes to an unknown network would be too many now; else they are counted."""
    if owl_bucket_take_shared(&w.shared.unproven_ns, size, w.quotas.unproven_bytes_per_s, w.now_ns, True) == 0:
        return False
    w.counters.answers_withheld += 1
    return True


cdef inline bint is_withheld(Worker *w, const Transfer *t, uint32_t size) noexcept nogil:
    """The same of what a transfer is about to be sent.  Nobody is told: it is as if it were lost on the way."""
    return w.quotas.unproven_bytes_per_s and t.unknown and not t.flight.proven and is_beyond_share(w, size)
