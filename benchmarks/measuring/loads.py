"""The loads that servers are compared under, and the content that travels.

May know: numbers. Must not start anything. Invariant: a load is bounded in clients, transfers and bytes.
"""

import random
from dataclasses import dataclass
from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
CONTENT_SEED = 7


@dataclass(frozen=True)
class Load:
    """What all clients of one run do.

    Attributes:
        words: For people.
        size_bytes: Of the file.
        clients: At once, 1..16384.
        transfers: Of all of them together.
        blksize: Asked for, bytes; 512: no option.
        windowsize: Asked for, blocks; 1: no option.
        more: Further arguments of the load generator.
        is_upload: Each transfer writes a file of its own.
    """

    words: str
    size_bytes: int
    clients: int
    transfers: int
    blksize: int = 512
    windowsize: int = 1
    more: tuple[str, ...] = ()
    is_upload: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """What a server has to be able to do: "uploads", "timers" (where datagrams are lost)."""
        needed = (("uploads", self.is_upload), ("timers", "--loss-percent" in self.more))
        return frozenset(name for name, is_needed in needed if is_needed)

    def scaled(self, scale: float) -> int:
        """Transfers, so many times as many; one for each client at least."""
        return max(self.clients, round(self.transfers * scale))

    def arguments(self, scale: float) -> list[str]:
        """For the load generator, without what depends on the server."""
        numbers = {"clients": self.clients, "transfers": self.scaled(scale)}
        numbers |= {"blksize": self.blksize, "windowsize": self.windowsize}
        words = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
        return [*words, *self.more, *(["--upload"] if self.is_upload else [])]

    def blocks(self, scale: float) -> int:
        """DATA that a run has to count, where the server grants what is asked."""
        return self.scaled(scale) * (self.size_bytes // self.blksize + 1)


# A client that has lost something waits for the server, whose timers are shorter: what is measured is the server's law.
_LOSSY = ("--delay-ms", "2", "--loss-percent", "1", "--timeout-s", "4")

LOADS = {
    "lockstep512": Load("50 clients, 512 B, lock-step", 256 * KIB, 50, 400),
    "lockstep1428": Load("50 clients, 1428 B, lock-step", 4 * MIB, 50, 100, 1428),
    "window16": Load("8 clients, 1428 B, window 16", 16 * MIB, 8, 64, 1428, 16),
    "window64": Load("2 clients, 1428 B, window 64", 64 * MIB, 2, 16, 1428, 64),
    "jumbo": Load("4 clients, 8192 B, window 32", 64 * MIB, 4, 16, 8192, 32),
    "storm1000": Load("1,000 clients at once, 1428 B", 128 * KIB, 1000, 3000, 1428),
    "storm10000": Load("10,000 clients at once, 1428 B", 64 * KIB, 10000, 10000, 1428, 1, ("--timeout-s", "2")),
    "tiny": Load("400-byte files, 200 clients", 400, 200, 20000),
    "lossy1": Load("1 % loss, 2 ms, 16 clients, 1428 B, lock-step", 256 * KIB, 16, 256, 1428, 1, _LOSSY),
    "lossy16": Load("1 % loss, 2 ms, 16 clients, 1428 B, window 16", 2 * MIB, 16, 256, 1428, 16, _LOSSY),
    "wan16": Load(
        "20 ms, 16 clients, 1428 B, window 16", 2 * MIB, 16, 32, 1428, 16, ("--delay-ms", "20", "--timeout-s", "3")
    ),
    "up512": Load("uploads, 50 clients, 512 B", 1 * MIB, 50, 100, is_upload=True),
    "up16": Load("uploads, 50 clients, 1428 B, window 16", 4 * MIB, 50, 100, 1428, 16, is_upload=True),
}
"""By the name that --loads takes."""


def write_content(load: Load, path: Path) -> None:
    """The same bytes every time, for anybody to read."""
    path.write_bytes(random.Random(CONTENT_SEED).randbytes(load.size_bytes))
    path.chmod(0o644)
