"""Exchanges names as fast as it can, in a process of its own: `python swapper.py ONE OTHER [ONE OTHER ...]`.

Two names of a pair change places at once (renameat2, RENAME_EXCHANGE); one pair after another, until standard input
ends. Then it says how often. A pair that cannot be exchanged, since somebody has taken a name away, is left for now.

    with swapping((root / "7", root / "bait"), ...) as swaps: ...
    swaps[0]

Must not: import the package, whose prey it would be.
"""

import ctypes
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # include/uapi/linux/fs.h
_LOOK_EVERY = 256


def swap_until_told(names: list[str]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    pairs = [(os.fsencode(one), os.fsencode(other)) for one, other in zip(names[::2], names[1::2], strict=True)]
    swaps = rounds = 0
    while rounds % _LOOK_EVERY or not select.select([0], [], [], 0)[0]:
        rounds += 1
        for one, other in pairs:
            swaps += libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0
    return swaps


@contextmanager
def swapping(*pairs: tuple[Path, Path]) -> Iterator[list[int]]:
    """Exchange the names of each pair meanwhile; afterwards the list holds how often."""
    names = [str(name) for pair in pairs for name in pair]
    swaps = [0]
    with subprocess.Popen(
        [sys.executable, __file__, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "begun\n"
            yield swaps
        finally:
            swaps[0] = int(process.communicate("\n")[0])


if __name__ == "__main__":
    print("begun", flush=True)
    print(swap_until_told(sys.argv[1:]))
