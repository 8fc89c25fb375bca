# Which TID a new transfer has: one that its peer did not have last, and that nobody else can foretell.
#
# A TID is all that keeps who forges an address from going on with a transfer, so how hard it was to guess is kept with
# the transfer (tid_bits): an answer to it is evidence (memory/networks.pxd).

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.index cimport hash_bytes
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.includes.net cimport GRND_NONBLOCK, getrandom
from snow_owl_tftp._engine.memory.guesses cimport guesses_are_recent
from snow_owl_tftp._engine.memory.slab cimport find_by_tid
from snow_owl_tftp._engine.net.sockets cimport Endpoint
from snow_owl_tftp._engine.worker.state cimport RANDOM_BYTES, TID_HISTORY, Worker

cdef enum:
    TID_EPOCH_NS = 10000000000    # how long new transfers prefer the same TID sockets
    LEAST_TIDS = 2                # where several transfers run new ones are spread over so many TID sockets ...
    TRANSFERS_A_TID = 25          # ... or one for so many transfers


cdef inline int32_t reply_socket(Worker *w, int32_t endpoint) noexcept nogil:
    """Where an ERROR to a request leaves from: any TID, or the listener in single-port mode."""
    cdef Endpoint *g = &w.sockets.endpoints[endpoint]
    return g.first_tid if g.tid_count else g.listener


cdef inline uint32_t random_below(Worker *w, uint32_t limit) noexcept nogil:
    """0 .. limit - 1 (limit at most 256), which nobody outside can foretell from those before."""
    if w.random.left == 0:
        if getrandom(w.random.bytes, RANDOM_BYTES, GRND_NONBLOCK) != RANDOM_BYTES:
            return <uint32_t>(hash_bytes(<uint8_t *>&w.now_ns, 8, w.secret) % limit)  # early in the boot
        w.random.left = RANDOM_BYTES
    w.random.left -= 1
    return w.random.bytes[w.random.left] % limit


cdef inline uint32_t tid_spread(Worker *w, const Endpoint *g) noexcept nogil:
    """Over how many TID sockets new transfers are spread.

    Whoever forges an address must guess its TID to go on.  All sockets are used where no other transfer runs, for then
    there is nothing to batch, and for a while after a wrong guess.  Otherwise so few that each has many datagrams.
    """
    cdef uint64_t spread = w.counters.live_transfers // TRANSFERS_A_TID
    if w.counters.live_transfers <= 1 or guesses_are_recent(&w.guesses, w.now_ns):
        return <uint32_t>g.tid_count
    if spread < LEAST_TIDS:
        spread = LEAST_TIDS
    return <uint32_t>spread if spread < <uint64_t>g.tid_count else <uint32_t>g.tid_count


cdef inline uint8_t tid_bits(uint32_t spread, bint one_is_out) noexcept nogil:
    """How unlikely it is to guess one of so many TIDs; the one next to a TID that is out is twice as likely."""
    cdef uint8_t bits = 0
    if one_is_out:
        spread //= 2
    while spread >= 2:
        spread //= 2
        bits += 1
    return bits


cdef inline int32_t choose_socket(Worker *w, Transfer *t, uint32_t of_peer, int32_t endpoint) noexcept nogil:
    """The TID socket of a new transfer; -1 when the peer has a live transfer on each of them.

    Never the one of the peer's last transfer: boot ROMs keep their port for every file, and a stale
    packet must not be taken for the new transfer's (RFC 1350 section 4).  Otherwise one that nobody can foretell of
    those that are in use, which change every ten seconds: a TID that is learned by a transfer of one's own is no
    proof of another's address.
    """
    cdef Endpoint *g = &w.sockets.endpoints[endpoint]
    cdef uint8_t *last = &w.tid_history[of_peer & (TID_HISTORY - 1)]
    cdef uint32_t spread, first, offset, i, at
    cdef const Peer *peer = &t.peer
    cdef uint64_t epoch = w.now_ns // TID_EPOCH_NS
    if g.tid_count == 0:
        return g.listener
    spread = tid_spread(w, g)
    first = <uint32_t>(hash_bytes(<uint8_t *>&epoch, 8, w.secret) % <uint32_t>g.tid_count)
    offset = random_below(w, spread)
    for i in range(<uint32_t>g.tid_count):
        # Those in use first, from a random one on; the others when the peer has a transfer on each of these.
        at = (first + (offset + i) % spread if i < spread else first + i) % <uint32_t>g.tid_count
        if at + 1 == last[0] and g.tid_count != 1:
            continue
        if find_by_tid(&w.slab, peer, of_peer, g.first_tid + <int32_t>at) == NULL:
            t.tid_bits = tid_bits(spread, last[0] != 0)
            last[0] = <uint8_t>(at + 1)
            return g.first_tid + <int32_t>at
    return -1
