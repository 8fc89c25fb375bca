"""Where uploads go that a rule sends to a root of its own: an UploadArea for each, a bounded number of them.

    RootPath ─device_of─► whose thread ─open_place─► Place ─take─► the UploadArea that is there already, or a new one

May know: directories and areas. Must not know requests, rules or threads.

Invariants:
- A root is entered anew for each upload: one that was removed and made again is another one, and gets another area.
- At most `_MAX_AREAS` are known; the one that was used longest ago gives way, and none that is in use does.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from snow_owl_tftp.content.devices import device_of
from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.source import NotHere
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.policy.decision import RootPath
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["UploadRoots", "open_place"]

_MAX_AREAS: Final = 256
"""A descriptor each. Two hundred machines that upload at the same time are a large laboratory."""


def open_place(root_dir: str, root: RootPath) -> Place:
    """Open the directory of a root; may block.

    Raises:
        RefusedError: It is not there, or may not be entered.
    """
    top, below = root.directory, root.below
    if not top.startswith("/"):  # then a link on the way leads no further than any other link below root_dir
        top, below = root_dir, os.path.join(os.fsencode(top), below)  # noqa: PTH118 - bytes
    try:
        tree = FileTree(top, key="roots")
    except ConfigError as error:
        raise RefusedError(ErrorCode.FILE_NOT_FOUND, "File not found", why=str(error)) from error
    place = tree.enter(below or b".")
    if isinstance(place, NotHere):
        raise place.refusal
    return place


class UploadRoots:
    """The areas that are known; whoever calls it holds a lock, but for `device_of`."""

    def __init__(self, make_area: Callable[[str, Place], UploadArea], users: Counter[UploadArea]) -> None:
        """Know none yet.

        Args:
            make_area: Makes one of a path and the open directory, which it takes over.
            users: How many uploads need each area.
        """
        self._make_area = make_area
        self._users = users
        self._areas: OrderedDict[RootPath, UploadArea] = OrderedDict()
        self._top: Place | None = None

    def device_of(self, root_dir: str, root: RootPath, path: bytes, may_wait_on: int | None) -> int:
        """Return on which device the way to a file of a root has to be waited for next."""
        if self._top is None:
            self._top = Place("/", "roots")
        way = os.fsencode(os.path.abspath(os.path.join(root_dir, root.directory)))  # noqa: PTH100, PTH118
        return device_of([self._top], b"/".join((way, root.below, path)), may_wait_on)

    def close(self) -> None:
        """Close what is not an area."""
        if self._top is not None:
            self._top.close()

    def take(self, root_dir: str, root: RootPath, place: Place) -> tuple[UploadArea, bool]:
        """Return the area of a root, and whether it is new: then it wants a sweep.

        Args:
            root_dir: What it is relative to.
            root: Which.
            place: Of `open_place`; taken over.

        Raises:
            RefusedError: All that may be known are in use.
        """
        area = self._areas.get(root)
        if area is not None and area.identity == place.identity:
            self._areas.move_to_end(root)
            return area, False
        if area is not None:
            self._drop(root)
        if len(self._areas) >= _MAX_AREAS:
            idle = next((known for known, one in self._areas.items() if not self._users[one]), None)
            if idle is None:
                raise RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again", why="too many roots at once")
            self._drop(idle)
        path = os.path.join(root_dir, root.directory, os.fsdecode(root.below))  # noqa: PTH118
        area = self._areas[root] = self._make_area(path, place)
        return area, True

    def _drop(self, root: RootPath) -> None:
        """Forget an area; who still uses it closes it."""
        area = self._areas.pop(root)
        if not self._users[area]:
            del self._users[area]
            area.close()

    def knows(self, area: UploadArea) -> bool:
        """Tell whether an area stays open without users."""
        return any(area is known for known in self._areas.values())

    @property
    def areas(self) -> list[UploadArea]:
        """All that are known."""
        return list(self._areas.values())
