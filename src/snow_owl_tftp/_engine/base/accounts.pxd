# Accounts: what each client has of what a rule lets it have, requests a second and transfers at a time.
#
#   request ─account_ask─► 0, or why it is refused                 by Python too, where it has found out the rule
#   begin() ─account_open─► one more ─account_prove─► answered ─account_close─► one less
#
# One table of all workers and of Python, under a mutex that is held for a few instructions: it is touched when a
# transfer under a rule with limits begins and ends.  So a limit is exact however many workers there are.
#
# Bounded: sets of ACCOUNT_WAYS entries.  An account without transfers whose bucket is full tells nothing, so it expires
# by itself; where a set is full the one without transfers that is fullest gives way (`replaced`).  Where each of a set
# holds transfers the newcomer has no account, and is not limited (`missed`): better than to lock it out.
# Invariant: an account that holds transfers stays where it is.
# Must not: refuse, send or end anything.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.peers cimport address_hash
from snow_owl_tftp._engine.base.quotas cimport ClientLimits
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock)
from snow_owl_tftp._engine.protocol.bucket cimport owl_bucket_take

cdef enum:
    ACCOUNT_WAYS = 8
    ACCOUNT_SETS = 32768          # 262,144 clients at a time; memory that nobody uses is not touched

cdef enum:                        # what a client may not
    ACCOUNT_GRANTS = 0
    ACCOUNT_REQUESTS = 1          # ask so often
    ACCOUNT_TRANSFERS = 2         # have so many transfers
    ACCOUNT_CROWDED = 3           # it may, and the oldest of its transfers that it has not answered should give way

cdef struct Account:
    uint64_t requests_ns          # when its bucket is full again (protocol/bucket.pxd)
    uint8_t address[16]
    uint32_t rule
    uint32_t live                 # transfers ...
    uint32_t unproven             # ... and of these: those that the client has not answered

cdef struct AccountTable:
    pthread_mutex_t lock
    Account *entries
    uint32_t sets                 # a power of two
    uint32_t held                 # transfers that accounts count
    uint64_t secret               # of the hashes
    uint64_t replaced, missed


cdef inline int accounts_init(AccountTable *table, uint32_t sets, uint64_t secret) noexcept nogil:
    """`table` is zeroed.  Returns -1 when there is no memory."""
    pthread_mutex_init(&table.lock, NULL)        # cannot fail: default attributes on Linux
    table.sets = sets
    table.secret = secret
    table.entries = <Account *>calloc(sets * ACCOUNT_WAYS, sizeof(Account))
    return 0 if table.entries != NULL else -1


cdef inline void accounts_free(AccountTable *table) noexcept nogil:
    """One that was never made, too: then all is zero."""
    if table.entries != NULL:
        pthread_mutex_destroy(&table.lock)
    free(table.entries)
    table.entries = NULL


cdef inline Account *account_of(AccountTable *table, const Peer *peer, uint32_t rule, uint64_t now_ns) noexcept nogil:
    """Under the lock; NULL: there is no room."""
    cdef uint8_t address[16]
    cdef uint32_t hash = address_hash(peer, table.secret, address) + rule * <uint32_t>0x9E3779B1
    cdef Account *entries = table.entries + (hash & (table.sets - 1)) * ACCOUNT_WAYS
    cdef Account *a = NULL
    cdef uint32_t i
    for i in range(<uint32_t>ACCOUNT_WAYS):
        if entries[i].rule == rule and memcmp(entries[i].address, address, 16) == 0:
            return &entries[i]
        if entries[i].live == 0 and (a == NULL or entries[i].requests_ns < a.requests_ns):
            a = &entries[i]
    if a == NULL:
        table.missed += 1
        return NULL
    table.replaced += a.requests_ns > now_ns
    memcpy(a.address, address, 16)
    a.rule = rule
    a.requests_ns = 0
    return a


cdef inline int account_ask(AccountTable *table, const Peer *peer, const ClientLimits *limits,
                            uint64_t now_ns) noexcept nogil:
    """Whether a client may ask once more: ACCOUNT_GRANTS, with one token taken, _REQUESTS or _TRANSFERS."""
    cdef int answer = ACCOUNT_GRANTS
    cdef Account *a
    pthread_mutex_lock(&table.lock)
    a = account_of(table, peer, limits.rule, now_ns)
    if a == NULL:
        answer = ACCOUNT_GRANTS
    elif limits.requests_per_s and owl_bucket_take(&a.requests_ns, 1, limits.requests_per_s, now_ns, True):
        answer = ACCOUNT_REQUESTS
    elif limits.transfers and a.live - a.unproven >= limits.transfers:
        answer = ACCOUNT_TRANSFERS
    pthread_mutex_unlock(&table.lock)
    return answer


cdef inline int account_open(AccountTable *table, const Peer *peer, const ClientLimits *limits, uint64_t now_ns,
                             Account **account) noexcept nogil:
    """One more transfer, which the client has not answered: ACCOUNT_GRANTS, _CROWDED, or _TRANSFERS: it is none.

    `account` is told of to account_prove() and account_close(); NULL: nobody counts it.
    """
    cdef int answer = ACCOUNT_GRANTS
    cdef Account *a
    account[0] = NULL
    pthread_mutex_lock(&table.lock)
    a = account_of(table, peer, limits.rule, now_ns)
    if a != NULL and a.live - a.unproven >= limits.transfers:
        answer = ACCOUNT_TRANSFERS
    elif a != NULL:
        if a.live >= limits.transfers:
            answer = ACCOUNT_CROWDED
        a.live += 1
        a.unproven += 1
        table.held += 1
        account[0] = a
    pthread_mutex_unlock(&table.lock)
    return answer


cdef inline uint32_t account_prove(AccountTable *table, Account *a) noexcept nogil:
    """The client has answered, or the transfer is over without that: at most once, before account_close().

    Returns how many it has answered now: more than it may have where they began at several workers.
    """
    cdef uint32_t proven
    pthread_mutex_lock(&table.lock)
    OWL_INVARIANT(0 < a.unproven <= a.live)
    a.unproven -= 1
    proven = a.live - a.unproven
    pthread_mutex_unlock(&table.lock)
    return proven


cdef inline bint account_rejoin(AccountTable *table, const Peer *peer, const ClientLimits *limits, uint64_t now_ns,
                                Account **account) noexcept nogil:
    """One that was closed goes on after all, answered: it counts again.  False: there is no place for it."""
    cdef bint has_place = True
    cdef Account *a
    pthread_mutex_lock(&table.lock)
    a = account_of(table, peer, limits.rule, now_ns)
    if a != NULL and a.live - a.unproven >= limits.transfers:
        has_place = False
    elif a != NULL:
        a.live += 1
        table.held += 1
        account[0] = a
    pthread_mutex_unlock(&table.lock)
    return has_place


cdef inline void account_close(AccountTable *table, Account *a) noexcept nogil:
    """It is over, after account_prove()."""
    pthread_mutex_lock(&table.lock)
    OWL_INVARIANT(a.unproven < a.live)
    a.live -= 1
    table.held -= 1
    pthread_mutex_unlock(&table.lock)
