# A token bucket as one integer, the moment at which it is full again.  protocol/bucket.py says why.
#
# The _shared ones are for a bucket of several threads: each step is one compare-and-exchange.

from libc.stdint cimport uint64_t

cdef extern from * nogil:
    """
    #include <stdint.h>
    #define OWL_BUCKET_NS 1000000000u
    static inline uint64_t owl_bucket_cost_ns(uint64_t amount, uint64_t rate) {
        return amount * OWL_BUCKET_NS / rate;
    }
    static inline uint64_t owl_bucket_wait_ns(uint64_t full, uint64_t cost, uint64_t now) {
        uint64_t base = full > now ? full : now, room = cost < OWL_BUCKET_NS ? OWL_BUCKET_NS - cost : 0;
        return base > now + room ? base - now - room : 0;
    }
    /* Takes the tokens and returns how long to wait for them.  With `only_now` it takes them only where that is 0. */
    static inline uint64_t owl_bucket_take(uint64_t *bucket, uint64_t amount, uint64_t rate, uint64_t now,
                                           int only_now) {
        uint64_t cost = owl_bucket_cost_ns(amount, rate), full = *bucket;
        uint64_t wait = owl_bucket_wait_ns(full, cost, now);
        if (wait == 0 || !only_now)
            *bucket = (full > now ? full : now) + cost;
        return wait;
    }
    static inline uint64_t owl_bucket_take_shared(uint64_t *bucket, uint64_t amount, uint64_t rate, uint64_t now,
                                                  int only_now) {
        uint64_t cost = owl_bucket_cost_ns(amount, rate), full = __atomic_load_n(bucket, __ATOMIC_RELAXED), wait;
        do {
            wait = owl_bucket_wait_ns(full, cost, now);
            if (wait && only_now)
                return wait;
        } while (!__atomic_compare_exchange_n(bucket, &full, (full > now ? full : now) + cost, 1, __ATOMIC_RELAXED,
                                              __ATOMIC_RELAXED));
        return wait;
    }
    static inline uint64_t owl_bucket_look_shared(uint64_t *bucket, uint64_t amount, uint64_t rate, uint64_t now) {
        return owl_bucket_wait_ns(__atomic_load_n(bucket, __ATOMIC_RELAXED), owl_bucket_cost_ns(amount, rate), now);
    }
    """
    uint64_t owl_bucket_cost_ns(uint64_t, uint64_t)
    uint64_t owl_bucket_wait_ns(uint64_t, uint64_t, uint64_t)
    uint64_t owl_bucket_take(uint64_t *, uint64_t, uint64_t, uint64_t, int)
    uint64_t owl_bucket_take_shared(uint64_t *, uint64_t, uint64_t, uint64_t, int)
    uint64_t owl_bucket_look_shared(uint64_t *, uint64_t, uint64_t, uint64_t)
