# The adaptive law: how long a worker lets datagrams gather before it drains its sockets.
#
# Numbers in, numbers out: knows no worker, clock or socket.  docs/batching.md explains the law.
#
# Invariants: never more than Tuning.linger_us; nothing at all when one call takes one datagram anyway;
# a law that has seen no datagrams, or none for a while, does not linger.

from libc.stdint cimport uint8_t, uint64_t
from snow_owl_tftp._engine.net.batch cimport Tuning

cdef enum:                        # Worker.mode, ModeChange.mode
    MODE_AT_ONCE = 0
    MODE_BATCHING = 1
    MODE_LINGERING = 2
    MODE_UNKNOWN = 255            # nothing decided, or nothing told, so far

cdef enum:
    RATE_WINDOW_NS = 1000000      # the arrival rate is measured over a millisecond
    RATE_MEMORY_NS = 100000000    # after a pause so long the rate before it says nothing any more
    MODE_HOLD_NS = 100000000      # a mode is kept so long: near a bound the law would flip at every turn
    LINGER_SHARE = 8              # a lock-step client loses at most an eighth of its speed
    LINGER_LEAST_NS = 50000       # a shorter sleep costs more (a wake-up: some 5 us) than it gathers
    LINGER_LEAST_DATAGRAMS = 8    # fewer do not pay for a sleep


cdef inline double smooth_rate(double rate_per_ns, uint64_t datagrams, uint64_t elapsed_ns) noexcept nogil:
    """Datagrams per nanosecond, smoothed by a quarter a step, after `datagrams` more in `elapsed_ns` (> 0)."""
    if elapsed_ns > RATE_MEMORY_NS:
        return 0
    return rate_per_ns + (<double>datagrams / <double>elapsed_ns - rate_per_ns) / 4


cdef inline uint64_t linger_law_ns(const Tuning *tuning, uint64_t live, double rate_per_ns,
                                   uint8_t *mode) noexcept nogil:
    """How long to linger with `live` transfers and datagrams coming at this rate; sets the mode that this is."""
    cdef double most = <double>tuning.linger_us * 1000, bound
    if tuning.adaptive and live < tuning.adaptive_threshold:
        mode[0] = MODE_AT_ONCE
        return 0
    mode[0] = MODE_BATCHING if tuning.recvmmsg else MODE_AT_ONCE
    if most == 0 or not tuning.recvmmsg:
        return 0
    if tuning.adaptive:
        if rate_per_ns <= 0:
            return 0
        # A transfer's packets come live / rate apart (Little's law).
        bound = live / rate_per_ns / LINGER_SHARE
        most = bound if bound < most else most
        bound = tuning.max_batch / rate_per_ns
        most = bound if bound < most else most
        if most < LINGER_LEAST_NS or rate_per_ns * most < LINGER_LEAST_DATAGRAMS:
            return 0
    mode[0] = MODE_LINGERING
    return <uint64_t>most
