"""The names below the root, in memory and kept fresh by a thread: a name in another case is found without a scan.

    follow(where) ──► a thread: TreeScan.scan ──► tree ──► find(b"BOOT/bcd")      answered from memory
                        ▲                           │
                        └── inotify: a name came ◄──┘                             there is no tree: case counts

May know: content's trees, and where the root is. Must not know requests, rules or the log: `listen` is told in words.

Invariants:
- `find` never waits and never asks the file system. Where there is no tree (not yet, or not any more) it finds nothing.
- A thread rests for nine times as long as it worked, so changes without end cost a tenth of a core.
- A place is given up once, with one line, and stays so until the configuration is read again, or the root moves.
- Threads that hang with a file system are left behind, `_MAX_HUNG` at most; then there is no tree. One that is told to
  end while it reads ends at the next directory.
"""

import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from snow_owl_tftp._engine.disk import apart
from snow_owl_tftp.content.confine import choose_resolver
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.file_systems import is_on_local_file_system

if TYPE_CHECKING:
    from snow_owl_tftp.content.any_case import CaseTree
    from snow_owl_tftp.linux.inotify import Change, Inotify

__all__ = ["NameIndex", "Where"]

_GATHER_S: Final = 0.02
"""What comes at once, such as the files of one package, is read at once."""
_REST: Final = 9
_MAX_READS: Final = 64
"""Of what has changed, before it is looked at: more may come all the time."""
_MAX_HUNG: Final = 4
_HUNG_S: Final = 2.0
"""Whoever has not ended so long after being told hangs."""
_MAX_ENDING: Final = 16
"""That do not hang: of reloads, one behind the other on a machine without a core for us."""
_REMEDIES: Final = {
    errno.ENOSPC: "raise the sysctl fs.inotify.max_user_watches, one for each directory",
    errno.EMFILE: "raise the sysctl fs.inotify.max_user_instances",
}

Tell: TypeAlias = Callable[[str, str, Mapping[str, object]], None]
"""Level, event and fields of a line; called by any thread."""


class Where(NamedTuple):
    """What is to be indexed.

    Attributes:
        root_dir: The root.
        link_targets: Where links may lead to outside of it.
        max_names: More are not kept.
        with_hidden: Names that begin with a dot are among them.
    """

    root_dir: str
    link_targets: Sequence[str]
    max_names: int
    with_hidden: bool


class NameIndex:
    """Finds names in any case, below one root at a time. The caller closes it."""

    def __init__(self) -> None:
        """Begin without a root, and without a thread."""
        self._tree: CaseTree | None = None
        self._keeper: _Keeper | None = None
        self._left: list[_Keeper] = []
        self._tell: Tell | None = None
        self._untold: deque[tuple[str, str, Mapping[str, object]]] = deque(maxlen=8)
        self._telling = threading.Lock()
        self._settled = threading.Event()
        self._settled.set()
        self._following = threading.Lock()  # the loop reloads while a thread finds that the root has moved
        self.rescans_total = 0

    def listen(self, tell: Tell) -> None:
        """Have lines told, those of the past first."""
        with self._telling:
            self._tell = tell
            while self._untold:
                tell(*self._untold.popleft())

    def settle(self, timeout_s: float) -> None:
        """Wait until names are found, or it is said that they will not be; at most so long. For the start alone."""
        self._settled.wait(timeout_s)

    def find(self, path: bytes, below: bytes = b"") -> bytes | None:
        """See CaseTree.find; may be called by any thread."""
        tree = self._tree
        return tree.find(path, below) if tree is not None else None

    def figures(self) -> dict[str, int]:
        """Return what there is to count; nothing where there is no root."""
        if self._keeper is None:
            return {}
        tree = self._tree
        return {
            "names_indexed": tree.names_total if tree is not None else 0,
            "directories_watched": len(tree.by_watch) if tree is not None else 0,
            "names_ambiguous": tree.ambiguous_total if tree is not None else 0,
            "index_rescans": self.rescans_total,
        }

    def follow(self, where: Where | None) -> None:
        """Index another root, or the same anew; None: none. What was read of the old one serves until then.

        Any thread may call it; it raises nothing.
        """
        with self._following:
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                keeper.stop()
                self._left = [left for left in (*self._left, keeper) if left.is_alive]
            if where is None:
                self._tree = None
            elif len(self._left) > _MAX_ENDING or sum(left.hangs for left in self._left) > _MAX_HUNG:
                self.give_up(None, "threads that read names hang with their file systems")
            else:
                self._settled.clear()
                self._begin(where)

    def _begin(self, where: Where) -> None:
        try:
            self._keeper = _Keeper(self, where)
        except OSError as error:
            self.give_up(None, str(error.strerror))
        else:
            self._keeper.start()

    def close(self) -> None:
        """End the thread, without waiting for it."""
        self.follow(None)

    # ---- said by threads

    def take(self, keeper: "_Keeper", tree: "CaseTree", seconds: float) -> None:
        """Look things up in another tree from now on."""
        if keeper is not self._keeper:
            return
        is_first, self._tree = not keeper.has_told, tree
        self._settled.set()
        self.rescans_total += not is_first
        keeper.has_told = True
        if is_first:
            figures = {"names": tree.names_total, "directories": len(tree.by_watch), "ms": int(seconds * 1000)}
            self._say("info", "names indexed", figures)

    def give_up(self, keeper: "_Keeper | None", reason: str) -> None:
        """Find nothing from now on, and say why."""
        if keeper is self._keeper:
            self._tree = None
            self._settled.set()
            self._say("warning", "case of names counts: there is no index of them", {"reason": reason})

    def _say(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        with self._telling:
            if self._tell is not None:
                self._tell(level, event, fields)
            else:
                self._untold.append((level, event, fields))


class _Keeper:
    """The thread that reads one root."""

    def __init__(self, index: NameIndex, where: Where) -> None:
        self.has_told = False
        self._index = index
        self._where = where
        self._wakes, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closing = threading.Lock()  # the pipe is closed by the thread, and written to by whoever stops it
        self._is_stopped = False
        self._stopped_s = 0.0
        self.is_alive = True

    @property
    def hangs(self) -> bool:
        """Whether it was told to end long ago."""
        return self.is_alive and self._is_stopped and time.monotonic() - self._stopped_s >= _HUNG_S

    def start(self) -> None:
        """Begin; the index knows this one now."""
        try:
            apart.start(threading.Thread(target=self._run, name="tftp-names", daemon=True))
        except RuntimeError:  # the system has no more
            self._end()
            self._index.give_up(self, "no thread is to be had")

    def stop(self) -> None:
        """Have the thread end soon; it may hang."""
        with self._closing:
            self._is_stopped, self._stopped_s = True, time.monotonic()
            if self.is_alive:
                with suppress(BlockingIOError):
                    os.write(self._waker, b"x")

    def _end(self) -> None:
        with self._closing:
            self.is_alive = False
            close_descriptor(self._wakes)
            close_descriptor(self._waker)

    def _run(self) -> None:
        # Lazy, as in _keep: most servers have no index.
        from snow_owl_tftp.content.tree_scan import ScanEndedError, TooManyNamesError
        from snow_owl_tftp.linux.inotify import Inotify

        inotify = None
        try:
            inotify = Inotify()
            self._keep(inotify)
        except ScanEndedError:
            pass  # another one reads on
        except TooManyNamesError:
            reason = f"there are more than names.max_indexed = {self._where.max_names}; raise it"
            self._index.give_up(self, reason)
        except ConfigError as error:
            self._index.give_up(self, str(error))
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0)
            self._index.give_up(self, f"{error.strerror}; {remedy}" if remedy else str(error.strerror))
        except Exception as error:  # a bug of ours must cost the index, not go unheard
            self._index.give_up(self, f"internal error: {error!r}")
        finally:
            if inotify is not None:
                inotify.close()
            self._end()

    def _keep(self, inotify: "Inotify") -> None:
        from snow_owl_tftp.content.tree_scan import TreeScan

        where = self._where
        places = [Place(where.root_dir, "root_dir"), *(Place(path, "link_targets") for path in where.link_targets)]
        scan = TreeScan(
            choose_resolver(places[0].fd, places),
            inotify,
            max_names=where.max_names,
            with_hidden=where.with_hidden,
            is_local=is_on_local_file_system,
            is_wanted=lambda: not self._is_stopped,
        )
        began_s = time.monotonic()
        tree = scan.scan()
        worked_s = time.monotonic() - began_s
        self._index.take(self, tree, worked_s)
        while changes := self._wait(inotify, max(_GATHER_S, _REST * worked_s)):
            began_s = time.monotonic()
            updated = scan.update(tree, changes)
            worked_s = time.monotonic() - began_s
            if updated is not tree:
                tree = updated
                self._index.take(self, tree, worked_s)

    def _wait(self, inotify: "Inotify", rest_s: float) -> "list[Change]":
        """Return what has changed, once something has and the rest is over; nothing: it is time to end."""
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        poll.poll(rest_s * 1000)
        poll.register(inotify.fd, select.POLLIN)
        while not self._is_stopped:
            poll.poll()
            if not self._is_stopped and (changes := inotify.read()):
                time.sleep(_GATHER_S)
                for _ in range(_MAX_READS):
                    changes += (more := inotify.read())
                    if not more:
                        break
                return changes
        return []
