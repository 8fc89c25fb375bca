# Wrong guesses: answers in the name of an address that came to another TID than that of its request.
#
# Counted by address until none has come for a minute.
# Bounded: of two addresses that share an entry the later one counts.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.peers cimport address_hash

cdef enum:
    GUESSES = 4096                # addresses whose wrong guesses are counted
    GUESS_MEMORY_NS = 60000000000  # how long after its last guess an address is known for it

cdef struct Guesser:
    # An address from which a TID was guessed wrongly, or seemed to be.
    uint32_t hash                 # of the address
    uint32_t count                # since it was quiet for GUESS_MEMORY_NS
    uint64_t last_ns              # 0: an unused entry

cdef struct Guesses:
    Guesser *entries              # by hash of the address
    uint64_t secret               # of the hashes
    uint64_t last_ns              # when the last one came, of anybody; 0: none yet


cdef inline int guesses_init(Guesses *guesses, uint64_t secret) noexcept nogil:
    """Returns -1 when there is no memory."""
    guesses.secret = secret
    guesses.entries = <Guesser *>calloc(GUESSES, sizeof(Guesser))
    return 0 if guesses.entries != NULL else -1


cdef inline void guesses_free(Guesses *guesses) noexcept nogil:
    free(guesses.entries)


cdef inline bint guesses_are_recent(const Guesses *guesses, uint64_t now_ns) noexcept nogil:
    """Whether anybody has guessed of late."""
    return guesses.last_ns and now_ns - guesses.last_ns < GUESS_MEMORY_NS


cdef inline void guesses_note(Guesses *guesses, const Peer *peer, uint64_t now_ns) noexcept nogil:
    """A TID was guessed wrongly in the name of this address."""
    cdef uint8_t address[16]
    cdef uint32_t hash = address_hash(peer, guesses.secret, address)
    cdef Guesser *guesser = &guesses.entries[hash & (GUESSES - 1)]
    guesses.last_ns = now_ns
    if guesser.hash != hash or now_ns - guesser.last_ns >= GUESS_MEMORY_NS:
        guesser.hash = hash                      # of two that share an entry the later one counts
        guesser.count = 0
    guesser.count += 1
    guesser.last_ns = now_ns


cdef inline Guesser *guesser_of(Guesses *guesses, const Peer *peer, uint64_t now_ns) noexcept nogil:
    """What is known of guesses in the name of this address; NULL: none for long."""
    cdef uint8_t address[16]
    cdef uint32_t hash
    cdef Guesser *guesser
    if not guesses_are_recent(guesses, now_ns):
        return NULL
    hash = address_hash(peer, guesses.secret, address)
    guesser = &guesses.entries[hash & (GUESSES - 1)]
    return guesser if guesser.hash == hash and now_ns - guesser.last_ns < GUESS_MEMORY_NS else NULL


cdef inline uint64_t guessed_since(Guesses *guesses, const Peer *peer, uint64_t now_ns) noexcept nogil:
    """When the last wrong guess in the name of this address came; 0: none for long."""
    cdef Guesser *guesser = guesser_of(guesses, peer, now_ns)
    return guesser.last_ns if guesser != NULL else 0
