"""An engine in a cgroup that evicts, with a disk that can be made slow: `python -m tests.engine.evicted_server FOLDER`.

Serves `local`, which is in memory for good (tmpfs without swap), and `slow/NAME`, on a slow disk of ext4. Says one line
of JSON, `{"port": …}` or `{"unavailable": why}`, then obeys lines on standard input with a line of JSON each:

    delay SECONDS       each read of the slow disk takes so long from now on
    evict               what was read of it is in memory no more
    evict_every SECONDS again and again, so far apart, on a thread; 0 ends it
    counters            the engine's, and `major_faults`: how often the worker itself waited for a page

It ends at the end of its input. The other side of test_evicted.py.
"""

import json
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.engine.conftest import Served
from tests.support.evicting_cgroup import EvictingCgroup, evicting_cgroup
from tests.support.slow_disk import SlowDisk, Unavailable, leave_mounts, slow_disk

DISK_MEGABYTES = 48


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def major_faults() -> int:
    """Of the worker's thread, by proc(5): field 12 of its stat, the tenth behind the name."""
    worker = next(thread for thread in threading.enumerate() if thread.name == "tftp-worker-0")
    stat = Path(f"/proc/self/task/{worker.native_id}/stat").read_text(encoding="ascii")
    return int(stat.rpartition(")")[2].split()[9])


class Commands:
    def __init__(self, served: Served, disk: SlowDisk, cgroup: EvictingCgroup) -> None:
        self.served, self.disk, self.cgroup = served, disk, cgroup
        self.enough = threading.Event()
        self.evicting: threading.Thread | None = None

    def delay(self, seconds: float = 0) -> None:
        self.disk.delay_s = seconds

    def evict(self) -> None:
        self.cgroup.evict()

    def evict_every(self, seconds: float = 0) -> None:
        if self.evicting is not None:
            self.enough.set()
            self.evicting.join()
            self.evicting = None
        if seconds:
            self.enough.clear()
            self.evicting = threading.Thread(target=self._evict_on, args=(seconds,))
            self.evicting.start()

    def _evict_on(self, seconds: float) -> None:
        while not self.enough.wait(seconds):
            self.cgroup.evict()

    def counters(self) -> dict[str, Any]:
        return {**self.served.engine.counters(), "major_faults": major_faults()}


def run(folder: Path, stack: ExitStack) -> None:
    disk = stack.enter_context(slow_disk(folder / "files", folder / "root/slow", folder, DISK_MEGABYTES))
    cgroup = stack.enter_context(evicting_cgroup())
    served = Served(folder / "root")
    stack.callback(served.stop)
    commands = Commands(served, disk, cgroup)
    stack.callback(commands.evict_every)
    stack.callback(commands.delay)
    say(port=served.address[1])
    for line in sys.stdin:
        name, *arguments = line.split()
        say(**(getattr(commands, name)(*map(float, arguments)) or {}))


def main() -> None:
    folder = Path(sys.argv[1])
    with ExitStack() as stack:
        try:
            leave_mounts()
            run(folder, stack)
        except Unavailable as reason:
            say(unavailable=str(reason))


if __name__ == "__main__":
    main()
