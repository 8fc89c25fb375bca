# Threads that ask file systems, in a process of their own that shares all memory and descriptors with ours.
#
# A process is not gone before each of its threads is, and a thread that waits for a FUSE daemon which has read
# its question cannot be killed (request_wait_answer() in fs/fuse/dev.c); nor is one whose last descriptor of such a
# file is being closed, since FLUSH is a question too. So a supervisor would wait for ever for a server that has nothing
# left to do. Hence such threads live in a host: a task made by clone(CLONE_VM | CLONE_FILES | CLONE_FS) without
# CLONE_THREAD. For them nothing is different, but the kernel counts them to another process: when ours ends, its
# entry and its sockets go at once, and the host follows (PR_SET_PDEATHSIG) as soon as what hangs comes back.
#
# The host itself runs on a stack of its own and with the thread-local storage of a thread of ours, which lends it and
# sleeps for ever. It calls pthread_create and nothing else, so every thread that it makes is an ordinary one of
# glibc's.
#
# Only a process that is ours alone does this (`snow-owl-tftp serve`): a program that changes its user id later
# would not change that of the host. Without begin() all threads are ordinary ones.
#
# Must not: know what the threads do.

from _thread import allocate_lock

from cpython.ref cimport Py_DECREF, Py_INCREF
from snow_owl_tftp._engine.includes.threads cimport owl_start_thread

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <sched.h>
    #include <semaphore.h>
    #include <signal.h>
    #include <stdint.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #include <sys/types.h>
    #include <unistd.h>

    #define OWL_HOST_STACK (256 * 1024)
    static struct {
        pthread_mutex_t mutex;                   /* one at a time asks for a thread */
        sem_t ready, asked, answered;
        pid_t parent, host;                      /* host: 0: there is none */
        void *(*run)(void *);
        void *argument;
        int result;
    } owl_apart = { .mutex = PTHREAD_MUTEX_INITIALIZER };

    static int owl_host(void *unused) {
        (void)unused;
        prctl(PR_SET_PDEATHSIG, SIGKILL);        /* cannot fail: a valid signal */
        prctl(PR_SET_NAME, "tftp-files");        /* cannot fail: a valid name */
        if (getppid() != owl_apart.parent)
            return 1;                            /* it has died before it could be told */
        for (;;) {
            while (sem_wait(&owl_apart.asked) < 0)
                continue;                        /* EINTR */
            owl_apart.result = owl_start_thread(owl_apart.run, owl_apart.argument);
            sem_post(&owl_apart.answered);        /* cannot fail: it is zero */
        }
    }
    /* The thread that lends its thread-local storage: it must not do anything while the host lives. */
    static void *owl_lender(void *stack) {
        owl_apart.result = clone(owl_host, (char *)stack + OWL_HOST_STACK, CLONE_VM | CLONE_FS | CLONE_FILES, NULL);
        if (owl_apart.result < 0)
            owl_apart.result = -errno;
        sem_post(&owl_apart.ready);               /* cannot fail: it is zero */
        for (;;)
            syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
        return NULL;
    }
    static inline int owl_apart_host(void) { return (int)owl_apart.host; }
    /* The host's process id, or a negative errno. */
    static int owl_begin_apart(void) {
        const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK;
        void *stack = mmap(NULL, OWL_HOST_STACK, PROT_READ | PROT_WRITE, kind, -1, 0);
        int error;
        if (stack == MAP_FAILED)
            return -errno;
        sem_init(&owl_apart.ready, 0, 0);         /* cannot fail: a valid value */
        sem_init(&owl_apart.asked, 0, 0);
        sem_init(&owl_apart.answered, 0, 0);
        owl_apart.parent = getpid();
        error = owl_start_thread(owl_lender, stack);
        if (error)
            return -error;
        while (sem_wait(&owl_apart.ready) < 0)
            continue;                            /* EINTR */
        if (owl_apart.result > 0)
            owl_apart.host = owl_apart.result;
        return owl_apart.result;
    }
    /* As owl_start_thread, in the host. */
    static int owl_start_apart(void *(*run)(void *), void *argument) {
        int result;
        pthread_mutex_lock(&owl_apart.mutex);
        owl_apart.run = run;
        owl_apart.argument = argument;
        sem_post(&owl_apart.asked);               /* cannot fail: it is zero */
        while (sem_wait(&owl_apart.answered) < 0)
            continue;                            /* EINTR */
        result = owl_apart.result;
        pthread_mutex_unlock(&owl_apart.mutex);
        return result;
    }
    """
    int owl_apart_host()
    int owl_begin_apart()
    int owl_start_apart(void *(*run)(void *) noexcept nogil, void *)


cdef int start_apart(void *(*run)(void *) noexcept nogil, void *argument) noexcept nogil:
    """As owl_start_thread, in the host if there is one."""
    if owl_apart_host() == 0:
        return owl_start_thread(run, argument)
    return owl_start_apart(run, argument)


cdef void *call(void *argument) noexcept with gil:
    """Calls a Python function in a thread that Python has not made; the reference is ours."""
    function = <object>argument
    Py_DECREF(function)
    function()
    return NULL


def begin():
    """Has threads that are started from now on live in a host; once in the life of a process.

    Call it when the process has its limits, its user and its signals: the host has its own copy of them.

    Returns:
        The host's process id; it ends with this process.

    Raises:
        OSError: The kernel, or a filter, does not allow it; threads are ordinary ones then.
    """
    cdef int host
    if owl_apart_host() != 0:
        raise ValueError("there is a host already")
    with nogil:
        host = owl_begin_apart()
    if host < 0:
        raise OSError(-host, "no process for threads that ask file systems")
    return host


def start(thread):
    """Starts a threading.Thread, in the host if there is one.

    Raises:
        RuntimeError: The system has no more threads.
    """
    cdef int error
    if owl_apart_host() == 0:
        thread.start()
        return
    begun, refused = allocate_lock(), []
    begun.acquire()

    def function():
        # Only a thread of the host starts another one there; that may be refused as well.
        try:
            thread.start()
        except RuntimeError as why:
            refused.append(why)
        finally:
            begun.release()

    Py_INCREF(function)
    with nogil:
        error = start_apart(call, <void *>function)
    if error:
        Py_DECREF(function)
        raise RuntimeError("can't start new thread")
    begun.acquire()
    if refused:
        raise refused[0]
