"""Sockets that a service manager has bound for us (sd_listen_fds(3)): descriptors from 3 on, counted by LISTEN_FDS.

    tftp.socket (ListenDatagram=69) ──LISTEN_PID, LISTEN_FDS──► bound UDP sockets, instead of `bind_addr`

So the server needs no privilege for port 69, and what arrives during a restart is kept.

May know: the environment and descriptors. Must not know settings or what the sockets are used for.
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import Final

from snow_owl_tftp.errors import ConfigError

__all__ = ["take_given_sockets"]

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_MAX_SOCKETS: Final = 4096
"""64 addresses for 64 workers."""
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


def take_given_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Take the sockets over, and remove the variables, so that no child takes them for its own.

    Args:
        environ: Where the variables are.

    Returns:
        Bound UDP sockets, non-blocking and close-on-exec, the caller's; none where nothing was handed to this process.

    Raises:
        ConfigError: Something else than bound UDP sockets was handed over.
    """
    pid, count_text = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    if not (count_text.isascii() and count_text.isdigit() and int(count_text) <= _MAX_SOCKETS):
        raise ConfigError(f'LISTEN_FDS: expected a number 0..{_MAX_SOCKETS}, got "{count_text}"')
    with ExitStack() as undo:
        given = []
        for fd in range(_FIRST_FD, _FIRST_FD + int(count_text)):
            sock = _take(fd)
            undo.callback(sock.close)
            _check(sock, fd)
            given.append(sock)
        undo.pop_all()
    return given


def _take(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
    except OSError as error:  # closed, or no socket
        raise ConfigError(f"LISTEN_FDS: descriptor {fd}: {error.strerror}; it has to be a UDP socket") from error
    return sock


def _check(sock: socket.socket, fd: int) -> None:
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_DGRAM:
        raise ConfigError(f"LISTEN_FDS: descriptor {fd} is no UDP socket; use ListenDatagram= with a port")
    if sock.getsockname()[1] == 0:
        raise ConfigError(f"LISTEN_FDS: descriptor {fd} is not bound to a port")
    try:
        sock.getpeername()
    except OSError:
        return
    raise ConfigError(f"LISTEN_FDS: descriptor {fd} is connected to one peer; it has to hear all of them")
