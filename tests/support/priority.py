"""Threads that the kernel runs before all ordinary ones, for tests that a thread which waits for a core would spoil.

    with ahead_of_all():
        served = serve()            # its threads, too: a thread inherits how it is scheduled

May know: the kernel's scheduling. Must not: be needed by any test; not every user may do that (CAP_SYS_NICE).
Invariant: what was set is put back.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ahead_of_all() -> Iterator[bool]:
    """This thread, and those that it starts; False where the system does not allow it.

    The kernel keeps a twentieth of each second for all others (sched_rt_runtime_us).
    """
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, policy, parameter)
