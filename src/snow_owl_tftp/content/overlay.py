"""One tree made of several directories: a file comes from the first that has it.

    roots = ["machines/{mac}", "site", "common"]
      open_now: machines/52:54:… ─no such file─► site ─no such file─► common ─► an open file
                        └ not in the kernel's caches ─► LATER ─► open_on(a device), in a thread: from the first on

May know: directories and paths. Must not know rules, or what stands for a variable.

Invariants:
- Each root confines by itself, exactly as root_dir does: `..` and links of one lead neither to another nor to what lies
  above or between them. The way to a relative one is confined to root_dir, as that of a file is.
- `open_now` never waits. Of roots that a variable chooses no descriptor is kept: they are entered anew for each
  request, from the directory above, which is held; so there is nothing that could be out of date, and nothing to bound.
- Only "there is no such file" makes the next root be asked: what may not be read in one is not made up for by another.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from snow_owl_tftp.content.devices import device_of
from snow_owl_tftp.content.files import FileTree, OpenFile
from snow_owl_tftp.content.refusals import refusal_of_errno
from snow_owl_tftp.content.source import LATER, Later, NamedInRoots, NamedRoot, NotHere
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["Overlay", "OverlayPlan"]

_Found: TypeAlias = OpenFile | NotHere | Later | None
"""None: there is no such root, which most machines have none of: no refusal is made for each."""
_KEPT: Final = 3
"""Sets of places that stay open after they were replaced: workers forget flows at their next turn only."""


class OverlayPlan(NamedTuple):
    """Which directories there are.

    Attributes:
        root_dir: What relative ones are relative to.
        link_targets: Directories outside a root that its links may lead to.
        directories: Roots without a variable.
        above_variables: Directories beneath which variables choose a root; "" is root_dir.
    """

    root_dir: str
    link_targets: tuple[str, ...] = ()
    directories: frozenset[str] = frozenset()
    above_variables: frozenset[str] = frozenset()


class Overlay:
    """The directories that rules name.

    Attributes:
        plan: Which they are.
        missing: Directories in which variables choose a root, and that are not there: no root is found in them.
    """

    def __init__(self, plan: OverlayPlan, keys: Mapping[str, str], max_file_size_bytes: int = 0) -> None:
        """Open them.

        Args:
            plan: Which they are.
            keys: For an error, the key of the settings that names each of `directories`.
            max_file_size_bytes: Larger files are refused; 0: no limit.

        Raises:
            ConfigError: A root without variables is no directory that can be opened.
        """
        self.plan = plan
        self.missing: frozenset[str] = frozenset()
        self._max_file_size_bytes = max_file_size_bytes
        self._kept: deque[list[tuple[Place, ...]]] = deque(maxlen=_KEPT)
        self._trees = {directory: self._open_tree(directory, keys[directory]) for directory in plan.directories}
        self._above: dict[str, FileTree] = {}
        self._open_above()

    def _open_tree(self, directory: str, key: str) -> FileTree:
        plan, size = self.plan, self._max_file_size_bytes
        if directory.startswith("/"):
            return FileTree(directory, size, link_targets=plan.link_targets, key=key)
        return _TreeBelow(plan.root_dir, directory or ".", size, plan.link_targets, key)

    def limit_files(self, max_file_size_bytes: int) -> None:
        """Refuse larger files from now on; 0: none."""
        self._max_file_size_bytes = max_file_size_bytes
        for tree in (*self._trees.values(), *self._above.values()):
            tree.max_file_size_bytes = max_file_size_bytes

    def close(self) -> None:
        """Close them; files opened before stay open."""
        for tree in (*self._trees.values(), *self._above.values()):
            tree.close()

    def _open_above(self) -> bool:
        """Open what is not open yet; returns whether anything was."""
        missing, opened = set(), {}
        for directory in self.plan.above_variables - self._above.keys():
            try:
                opened[directory] = self._open_tree(directory, "roots")
            except ConfigError:
                missing.add(directory)
        self._above = {**self._above, **opened}  # swapped, since other threads look things up in it
        self.missing = frozenset(missing)
        return bool(opened)

    def look_again(self) -> bool:
        """Look up all paths again, and go on where they lead now; call it in a thread.

        Returns:
            Whether one leads elsewhere: then flows must be forgotten.

        Raises:
            ConfigError: One leads to no directory; it stays where it was.
        """
        trees = [*self._trees.values(), *self._above.values()]
        places = [tree.places for tree in trees]
        has_moved, problems = self._open_above(), []
        for tree in trees:
            try:
                has_moved = tree.look_again() or has_moved
            except ConfigError as error:
                problems.append(str(error))
        if has_moved:
            self._kept.append(places)
        if problems:
            raise ConfigError("; ".join(problems))
        return has_moved

    def open_now(self, named: NamedInRoots) -> OpenFile | NotHere | Later:
        """See ContentSource.open_now."""
        return self._first(named, self._open_now)

    def open(self, named: NamedInRoots) -> OpenFile | NotHere:
        """See ContentSource.open."""
        found = self.open_on(named, None)
        assert not isinstance(found, int), "what may wait for any device asks for none"
        return found

    def open_on(self, named: NamedInRoots, may_wait_on: int | None) -> OpenFile | NotHere | int:
        """Open; may wait for one device.

        Args:
            named: As for open.
            may_wait_on: The device; None: for any.

        Returns:
            As `open`, or the device that has to be waited for next.
        """
        elsewhere: list[int] = []

        def open_root(root: NamedRoot, named: NamedInRoots) -> _Found:
            found = self._open_now(root, named)
            if found is not LATER:
                return found
            device = self._device_of(root, named, may_wait_on)
            if may_wait_on not in (None, device):
                elsewhere.append(device)
                return LATER
            return self._open(root, named)

        found = self._first(named, open_root)
        return elsewhere[0] if found is LATER else found

    def device_of(self, named: NamedInRoots, may_wait_on: int | None = None) -> int:
        """Return on which device (st_dev) a name has to be waited for first."""
        devices: list[int] = []

        def look(root: NamedRoot, named: NamedInRoots) -> _Found:
            devices.append(self._device_of(root, named, may_wait_on))
            return self._open_now(root, named)

        found = self._first(named, look)
        if isinstance(found, OpenFile):
            found.close()
        return devices[-1]

    def _first(
        self, named: NamedInRoots, open_root: Callable[[NamedRoot, NamedInRoots], _Found]
    ) -> OpenFile | NotHere | Later:
        found: _Found = None
        for root in named.roots:
            found = open_root(root, named)
            if found is None:
                continue
            if not isinstance(found, NotHere):
                if found is not LATER and not root.below and root is named.roots[0]:
                    tree = self._trees[root.directory]
                    found.root_fd = tree.places[0].fd if tree.is_local else -1
                return found
            if found.refusal.code != ErrorCode.FILE_NOT_FOUND:
                return found
        return found or NotHere(refusal_of_errno(errno.ENOENT))

    def _open_now(self, root: NamedRoot, named: NamedInRoots) -> _Found:
        if not root.below:
            return self._trees[root.directory].open_now(named)
        above = self._above.get(root.directory)
        return None if above is None else above.open_now_below(root.below, named)

    def _open(self, root: NamedRoot, named: NamedInRoots) -> OpenFile | NotHere:
        """Of a root that is there."""
        if not root.below:
            return self._trees[root.directory].open(named)
        return self._above[root.directory].open_below(root.below, named)

    def _device_of(self, root: NamedRoot, named: NamedInRoots, may_wait_on: int | None) -> int:
        if not root.below:
            return self._trees[root.directory].device_of(named, may_wait_on)
        above = self._above.get(root.directory)
        if above is None:
            return 0
        path = root.below + b"/" + named.paths[0]
        return device_of(above.places, path, may_wait_on, is_local=above.is_local)


class _TreeBelow(FileTree):
    """A root that is named relative to root_dir: a link on the way to it leads no further than any link below root_dir,
    whoever has put it there, and whenever.
    """

    def __init__(
        self, root_dir: str, directory: str, max_file_size_bytes: int, link_targets: tuple[str, ...], key: str
    ) -> None:
        self._root_dir = root_dir
        super().__init__(directory, max_file_size_bytes, link_targets=link_targets, key=key)

    def _open_places(self) -> tuple[Place, ...]:
        top = FileTree(self._root_dir, link_targets=self._link_targets)
        fd = top.descriptor_of(os.fsencode(self._root))
        root_dir, *targets = top.places
        root_dir.close()  # it has served its turn
        path = os.path.join(self._root_dir, self._root)  # noqa: PTH118 - "." too
        if fd >= 0:
            return Place(path, self._key, fd), *targets
        top.close()
        reason, remedy = os.strerror(-fd), "name a directory that this user may enter"
        if fd in (-errno.EXDEV, -errno.ELOOP):
            reason, remedy = "a link leads out of root_dir", "name where it leads, or add that to link_targets"
        raise ConfigError(f"{self._key}: {path}: {reason}; {remedy}")
