"""What this process holds open: a test counts before and after, and nothing may have been left.

May know: /proc. Must not: import the package.
"""

import gc
from pathlib import Path


def open_descriptors() -> int:
    """How many, with the one of the look itself."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def settled_descriptors() -> int:
    """The same, once what earlier tests left to the collector is gone: takes a tenth of a second."""
    gc.collect()
    return open_descriptors()
