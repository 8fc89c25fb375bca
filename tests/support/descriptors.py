"""What this process holds open: a test looks before and after, and nothing may have been left.

May know: /proc. Must not: import the package.
Three looks: `open_descriptors` counts now; `settled_descriptors` counts once threads have closed what they looked at,
and waits for that each time; `descriptors_at_rest` is for code without threads, and waits only where something changed.
"""

import contextlib
import gc
import os
import time
from pathlib import Path

REST_S = 0.2

_at_rest: frozenset[str] = frozenset()
"""What was open when everything rested last."""


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


def descriptors_at_rest() -> frozenset[str]:
    """What is open, each by its number and by what /proc says that it is, once nothing opens and closes any more.

    Nothing is waited for where this was just so when everything rested last: then nothing was left since, nothing is on
    its way, and nobody else's descriptor was closed. A thousand tests of a folder take one rest, and not two each.
    """
    global _at_rest
    if (seen := _open_now()) == _at_rest:
        return seen
    gc.collect()
    seen, since = _open_now(), time.monotonic()
    while time.monotonic() - since < REST_S:
        time.sleep(REST_S / 10)
        if (now := _open_now()) != seen:
            seen, since = now, time.monotonic()
    _at_rest = seen
    return seen


def _open_now() -> frozenset[str]:
    """What is closed before it can be looked at, as the descriptor of the listing itself, is no part of it."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a thousand paths a test would be its longest part
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")  # noqa: PTH115 - as above
    return frozenset(found)
