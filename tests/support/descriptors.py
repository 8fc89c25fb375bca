"""What this process holds open: a test counts before and after, and nothing may have been left.

May know: /proc. Must not: import the package.
"""

import gc
import time
from pathlib import Path

REST_S = 0.2


def open_descriptors() -> int:
    """How many, with the one of the look itself."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def settled_descriptors() -> int:
    """The same, once nothing opens and closes any more: what earlier tests left to the collector is gone, and threads
    have closed what they looked at. Takes a tenth of a second, and the rest.
    """
    gc.collect()
    seen, since = open_descriptors(), time.monotonic()
    while time.monotonic() - since < REST_S:
        time.sleep(REST_S / 10)
        if (now := open_descriptors()) != seen:
            seen, since = now, time.monotonic()
    return seen
