"""Where each client's last file lay: so that what it asks for by a bare name is found beside that.

    a read of b"a/b/shimx64.efi" has ended well ─► note(host, …)
    RRQ "grubx64.efi", which is not at the root ─► beside(host, b"grubx64.efi") ─► b"a/b/grubx64.efi"

A second stage is often asked for without the directory that the first one came from (shim, iPXE). May know: addresses
and paths. Must not know requests, rules or files.

Invariants:
- Only a file that was delivered is remembered, whoever began its transfer, the engine by itself included: whoever
  merely asks, from an address that may be forged, changes nothing.
- Bounded by `_MAX_CLIENTS`; the one that was noted longest ago gives way. Nothing is remembered longer than
  `_REMEMBER_S`.
- `note` is called by the event loop alone, `beside` by any thread.
"""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["LastFolders"]

_MAX_CLIENTS: Final = 8192
"""Some 2 MB. A rack that boots at once asks within seconds."""
_REMEMBER_S: Final = 300.0
"""A firmware starts what it has loaded at once; a person at its menu takes a minute."""


class LastFolders:
    """The directory of each client's last file."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember nobody.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._folders: dict[str, tuple[bytes, float]] = {}

    def __len__(self) -> int:
        return len(self._folders)

    def note(self, host: str, path: bytes) -> None:
        """Remember where a file lay that a client has received."""
        self._folders.pop(host, None)  # what is noted goes to the end
        folder, slash, _ = path.rpartition(b"/")
        if not slash:
            return  # what lies at the root is found there
        if len(self._folders) >= _MAX_CLIENTS:
            del self._folders[next(iter(self._folders))]
        self._folders[host] = folder, self._clock()

    def beside(self, host: str, name: bytes) -> bytes | None:
        """Return the path of a bare name beside a client's last file; None: no such file is remembered."""
        folder, noted_s = self._folders.get(host, (b"", 0.0))
        if not folder or self._clock() - noted_s > _REMEMBER_S:
            return None
        return folder + b"/" + name
