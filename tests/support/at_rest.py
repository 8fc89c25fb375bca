"""What a process holds once nothing happens: descriptors, threads, inotify watches, memory.

May know: /proc. Must not: import the package.
"""

import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Held", "held_by", "settled", "wait_until_held"]

REST_S: Final = 0.5
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True)
class Held:
    """Descriptors by what they are of, threads by their names, and watches; numbers are left out of names."""

    descriptors: Counter[str]
    threads: Counter[str]
    watches: int

    def more_than(self, other: "Held") -> str:
        """In words: what there is of, that `other` has not, or fewer of."""
        more = [*(self.descriptors - other.descriptors).items(), *(self.threads - other.threads).items()]
        if self.watches > other.watches:
            more.append(("inotify watches", self.watches - other.watches))
        return ", ".join(f"{count} more of {name}" for name, count in more)


def held_by(pid: int, alike: tuple[str, ...] = ()) -> Held:
    """Look once. `alike` are parts of paths that make no difference."""
    descriptors: Counter[str] = Counter()
    watches = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            name = str(entry.readlink())
            for part in alike:
                name = name.replace(part, "/*/")
            descriptors[_NUMBER.sub("N", name)] += 1
            if "inotify" in name:
                watches += Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().count("inotify wd:")
    threads: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            threads[_NUMBER.sub("N", (task / "comm").read_text().strip())] += 1
    return Held(descriptors, threads, watches)


def settled(pid: int, alike: tuple[str, ...] = (), within_s: float = 30.0) -> Held:
    """The same, once nothing has changed for a while."""
    end = time.monotonic() + within_s
    seen, since = held_by(pid, alike), time.monotonic()
    while time.monotonic() - since < REST_S and time.monotonic() < end:
        time.sleep(REST_S / 10)
        if (now := held_by(pid, alike)) != seen:
            seen, since = now, time.monotonic()
    return seen


def wait_until_held(pid: int, wanted: Held, alike: tuple[str, ...] = (), within_s: float = 30.0) -> None:
    """Wait until there is no more than was wanted; AssertionError says what there is too much of."""
    end = time.monotonic() + within_s
    while too_much := held_by(pid, alike).more_than(wanted):
        assert time.monotonic() < end, f"left over: {too_much}"
        time.sleep(REST_S / 10)


def resident_kib(pid: int) -> int:
    """VmRSS of proc(5), in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
