"""Whether eBPF works here: found out once, by doing it.

Invariants: a test that cannot trace is skipped with the reason, loudly; what merely fails is no reason to skip.
"""

import functools

import pytest

from snow_owl_tftp.observe.trace.counter import why_not_after_trying

why_no_trace = functools.cache(why_not_after_trying)


@pytest.fixture(scope="session")
def tracing() -> None:
    """Skips where bpftrace is missing, is not allowed, or finds a kernel without what it needs."""
    if problem := why_no_trace():
        pytest.skip(f"NOT TRACED: {problem}")


needs_trace = pytest.mark.usefixtures("tracing")
