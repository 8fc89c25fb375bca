"""The inventory as a file, which is read whole; and how files are opened that others write.

    look ─► nothing new | read, and the table filled | what to tell, and when to look again

May know: files. All of it runs in threads: a look may wait for its disk.

Invariants: one look at a file at a time; a file that is none changes nothing, and is told once, not at every look.
"""

import os
import stat
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate.machines.followed import FollowOutcome, Told
from snow_owl_tftp.policy.machines.formats import read_inventory
from snow_owl_tftp.policy.machines.inventory import Inventory

__all__ = ["InventoryFile", "open_regular", "stamp_of"]

_MAX_INVENTORY_BYTES: Final = 128 * 1024 * 1024
_SETTLE_S: Final = 0.2
"""An editor empties a file and writes it: so long must it have been left alone, or half a list would be believed."""


def open_regular(path: str) -> int:
    """Open a regular file for reading.

    Raises:
        OSError: There is none; a FIFO or a device is none, and is not waited for.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(None, "it is no regular file")
    return fd


def stamp_of(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Return what changes when a file does: device, inode, size, mtime, ctime."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class InventoryFile:
    """See FollowedFile."""

    def __init__(self, path: str, inventory: Inventory) -> None:
        """Prepare to fill an inventory."""
        self.path = os.path.abspath(path)  # noqa: PTH100 - with its links
        self._inventory = inventory
        self._stamp: object = None
        self._met: object = None
        self._refused = ""

    def fetch(self) -> bytes:
        """Read the file; may wait for its disk.

        Raises:
            ConfigError: It cannot be read.
        """
        data, self._stamp = self._read()
        return data

    def learn(self, data: bytes) -> None:
        """Know what was fetched; that takes a while, but waits for nothing.

        Raises:
            ConfigError: It is no inventory; the old one stays.
        """
        self._inventory.replace(read_inventory(data, self.path))

    def look(self) -> FollowOutcome:
        """See FollowedFile.look."""
        stamp: object = None
        try:
            stamp = stamp_of(os.stat(self.path))  # noqa: PTH116 - as its path leads
            if stamp == self._stamp:
                self._refused = ""
                return FollowOutcome()
            if stamp != self._met:
                self._met = stamp
                return FollowOutcome(again_s=_SETTLE_S)
            self.learn(self.fetch())
        except OSError as error:
            return self._refuse(str(error.errno), f"{self.path}: {error.strerror}; bring it back")
        except ConfigError as error:
            return self._refuse(str(stamp), "; ".join(str(error).splitlines()))
        self._refused = ""
        return FollowOutcome(
            (Told("info", "inventory read again", {"file": self.path, "machines": self._inventory.size}),)
        )

    def close(self) -> None:
        """See FollowedFile.close; nothing is kept open."""

    def _refuse(self, what: str, reason: str) -> FollowOutcome:
        if what == self._refused:
            return FollowOutcome()
        self._refused = what
        return FollowOutcome((Told("error", "inventory refused, the old one stays", {"reason": reason}),))

    def _read(self) -> tuple[bytes, object]:
        try:
            fd = open_regular(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; name a readable file, or none") from error
        try:
            status = os.fstat(fd)
            if status.st_size > _MAX_INVENTORY_BYTES:
                raise ConfigError(f"{self.path}: it is larger than {_MAX_INVENTORY_BYTES} bytes; is it an inventory?")
            with os.fdopen(os.dup(fd), "rb") as file:
                return file.read(_MAX_INVENTORY_BYTES), stamp_of(status)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}; name a readable file, or none") from error
        finally:
            os.close(fd)
