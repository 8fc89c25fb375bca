r"""What a service manager is told of us (sd_notify(3)): datagrams to the socket that NOTIFY_SOCKET names.

    Notifier.tell(READY="1", STATUS="…") ──► "READY=1\nSTATUS=…"

May know: the environment and the protocol. Must not know what is ready.

Invariants:
- Nothing waits, and nothing raises: a manager that does not listen is no reason to serve worse. What it did not take is
  counted.
- The variable is taken out of the environment: a child's words would pass for ours.
"""

import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notifier"]


class Notifier:
    """The way to one service manager, or to nobody.

    Attributes:
        lost_total: Messages that it did not take.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Find out who wants to be told.

        Args:
            environ: Where the variable is.
        """
        self.lost_total = 0
        address = environ.pop("NOTIFY_SOCKET", "")
        # "@" stands for the abstract name space (unix(7)); anything but it and a path is none of ours.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address[:1] in ("@", "/"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def close(self) -> None:
        """Tell nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def tell(self, **variables: str) -> None:
        """Send variables of sd_notify(3), all in one datagram; their texts have one line each."""
        if self._socket is None:
            return
        message = "\n".join(f"{name}={value}" for name, value in variables.items())
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError:
            self.lost_total += 1

    def tell_reloading(self) -> None:
        """Say that a reload has begun; READY ends it. For Type=notify-reload with the time of now, in microseconds."""
        self.tell(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))
