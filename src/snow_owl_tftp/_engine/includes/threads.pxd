# What the engine borrows from C for threads: mutexes, condition variables, atomic integers, timer slack.
#
# The atomics are the compiler's own (__atomic_*), wrapped because Cython cannot call a type-generic
# builtin.  Memory order: release on the writer's side, acquire on the reader's, unless said otherwise.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.includes.net cimport timespec


cdef extern from * nogil:
    """
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <sys/prctl.h>
    static inline uint32_t owl_add32(uint32_t *p, int32_t d) {
        return __atomic_add_fetch(p, (uint32_t)d, __ATOMIC_ACQ_REL);
    }
    /* Adds D to *P as long as that is at least LEAST; 0: it is less. */
    static inline int owl_add32_from(uint32_t *p, int32_t d, uint32_t least) {
        uint32_t v = __atomic_load_n(p, __ATOMIC_RELAXED);
        while (v >= least)
            if (__atomic_compare_exchange_n(p, &v, v + (uint32_t)d, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
                return 1;
        return 0;
    }
    /* A turn begins (odd) or ends, for its own thread to say.  With the fences either the turn sees what was written
       before another thread looked at it, or that thread sees the turn. */
    static inline void owl_turn(uint32_t *p) {
        __atomic_store_n(p, *p + 1, __ATOMIC_RELEASE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    static inline uint32_t owl_look_at_turn(const uint32_t *p) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        return __atomic_load_n(p, __ATOMIC_ACQUIRE);
    }
    static inline uint64_t owl_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void owl_store64(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    /* A thread that nobody joins, and that no signal meets. 0, or an errno. */
    static inline int owl_start_thread(void *(*run)(void *), void *argument) {
        pthread_t thread;
        pthread_attr_t attr;
        sigset_t all, old;
        int error = pthread_attr_init(&attr);
        if (error)
            return error;
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);   /* cannot fail: a valid state */
        pthread_attr_setstacksize(&attr, 512 * 1024);                  /* cannot fail: more than the least */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);                      /* cannot fail: valid arguments */
        error = pthread_create(&thread, &attr, run, argument);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
        return error;
    }
    static inline uint32_t owl_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void owl_store32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint8_t owl_load8(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void owl_store8(uint8_t *p, uint8_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int owl_swap8(uint8_t *p, uint8_t old, uint8_t v) {
        return __atomic_compare_exchange_n(p, &old, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    uint32_t owl_add32(uint32_t *, int)
    int owl_add32_from(uint32_t *, int, uint32_t)
    void owl_turn(uint32_t *)
    uint32_t owl_look_at_turn(const uint32_t *)
    uint32_t owl_load32(const uint32_t *)
    uint64_t owl_load64(const uint64_t *)
    void owl_store64(uint64_t *, uint64_t)
    int owl_start_thread(void *(*)(void *) noexcept nogil, void *)
    void owl_store32(uint32_t *, uint32_t)
    uint8_t owl_load8(const uint8_t *)
    void owl_store8(uint8_t *, uint8_t)
    int owl_swap8(uint8_t *, uint8_t, uint8_t)

    int PR_SET_TIMERSLACK
    int prctl(int, unsigned long)

    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef unsigned long pthread_t
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, void *)
    int pthread_cond_destroy(pthread_cond_t *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_timedwait(pthread_cond_t *, pthread_mutex_t *, const timespec *)
    int pthread_cond_signal(pthread_cond_t *)
    int pthread_cond_broadcast(pthread_cond_t *)
