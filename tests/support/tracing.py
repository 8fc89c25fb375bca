"""Whether eBPF works here: found out once, by doing it.

Invariants: a test that cannot trace is skipped with the reason, loudly; what merely fails is no reason to skip.
"""

import functools
import os

import pytest

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.trace import Tracer, why_not


@functools.cache
def why_no_trace() -> str | None:
    if problem := why_not():
        return problem
    try:
        with Tracer(os.getpid()):
            return None
    except ConfigError as error:
        return str(error)


@pytest.fixture(scope="session")
def tracing() -> None:
    """Skips where bpftrace is missing, is not allowed, or finds a kernel without what it needs."""
    if problem := why_no_trace():
        pytest.skip(f"NOT TRACED: {problem} (scripts/install-peers.sh installs bpftrace)")


needs_trace = pytest.mark.usefixtures("tracing")
