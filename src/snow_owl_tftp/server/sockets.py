"""Binds what the engine will own: per address and worker one listener and a pool of TID sockets.

    bind_addr "[::]:69", 2 workers, 16 TID sockets
        worker 0: listener [::]:69 (SO_REUSEPORT), 16 × [::]:ephemeral
        worker 1: listener [::]:69 (SO_REUSEPORT), 16 × [::]:ephemeral

May know: settings and the kernel's socket calls. Must not know TFTP, transfers or the engine.

Invariants:
- All or nothing: when one socket cannot be had, every one opened before is closed again.
- Two servers never share a port by accident. SO_REUSEPORT alone would let a second server of the
  same user take half of the requests in silence, so the first socket of an address is bound without
  it and shares its port only afterwards.
- Sockets that were bound by somebody else are used as they are, and nothing is bound instead.
- A wildcard socket reports the address that was asked (PKTINFO), since an answer from another
  address of the same machine is dropped by every client, and by most firewalls.
"""

import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from snow_owl_tftp.config.schema import Settings, SocketSettings
from snow_owl_tftp.errors import ConfigError, EngineError
from snow_owl_tftp.linux.remedies import with_remedy
from snow_owl_tftp.linux.sockopts import enlarge, join_datagrams, tell_local_address

__all__ = ["BoundAddress", "format_address", "open_addresses"]

Warn = Callable[..., Any]
"""Takes an event and fields, like the methods of a structlog logger."""

MAX_ADDRESSES: Final = 64
"""The engine numbers addresses 0..63 (docs/engine-contract.md)."""

_MAX_BUFFER_BYTES: Final = 2**30 - 1
"""The kernel doubles what is asked and keeps it in an int (net/core/sock.c)."""


@dataclass(slots=True)
class BoundAddress:
    """The sockets of one bind_addr.

    Attributes:
        host: As bound.
        port: As bound, never 0.
        is_wildcard: Answers must name their source address; the sockets report which was asked.
        listeners: One per worker.
        tids: Per worker, its pool; empty lists where transfers share the listener's port.
        joins_datagrams: The TID sockets hand over trains of datagrams whole (UDP_GRO).
    """

    host: str
    port: int
    is_wildcard: bool
    listeners: list[socket.socket] = field(default_factory=list)
    tids: list[list[socket.socket]] = field(default_factory=list)
    joins_datagrams: bool = False

    @property
    def text(self) -> str:
        """As `parse_bind` reads it."""
        return format_address(self.host, self.port)

    def close(self) -> None:
        """Close what the engine has not taken over."""
        for sock in [*self.listeners, *(sock for pool in self.tids for sock in pool)]:
            sock.close()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What all sockets of one address have in common."""

    family: int
    sockaddr: tuple[Any, ...]
    dual_stack: bool
    is_wildcard: bool
    buffers: SocketSettings


def format_address(host: str, port: int) -> str:
    """Write an address as `parse_bind` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_addresses(settings: Settings, warn: Warn, given: Sequence[socket.socket] = ()) -> list[BoundAddress]:
    """Bind everything that settings name.

    Args:
        settings: Addresses, workers, TID sockets, buffers.
        warn: Told about what works worse than asked for, with the remedy.
        given: Bound sockets to listen on instead of `bind_addr`; several of one address are for as many workers.
            They are taken over unless this fails.

    Returns:
        One BoundAddress per address, in their order.

    Raises:
        ConfigError: Too many addresses, or `tid_ports` has no free port left.
        EngineError: An address cannot be bound; its text names the address and the remedy.
    """
    if given:
        return _open_given(settings, given, warn)
    binds = settings.bind_addresses
    if len(binds) > MAX_ADDRESSES:
        raise ConfigError(f"bind_addr: at most {MAX_ADDRESSES} addresses, got {len(binds)}")
    with ExitStack() as undo:
        addresses = []
        for host, port in binds:
            # Both "0.0.0.0:69" and "[::]:69": the second must leave IPv4 to the first.
            dual_stack = host == "::" and ("0.0.0.0", port) not in binds
            address = _open_address(settings, host, port, dual_stack, warn)
            undo.callback(address.close)
            addresses.append(address)
        _warn_of_small_buffers(addresses[0].listeners[0], settings.performance.platform.socket, warn)
        undo.pop_all()
    return addresses


def _open_address(settings: Settings, host: str, port: int, dual_stack: bool, warn: Warn) -> BoundAddress:
    kind = _kind_of(host, port, dual_stack, settings.performance.platform.socket)
    try:
        first = _bind(kind, port)
    except OSError as error:
        if not (dual_stack and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)):
            raise _bind_error(host, port, error) from error
        # A kernel without IPv6 must not stop a server that is told to listen everywhere.
        warn("no IPv6 on this machine, listening on IPv4 only", address=format_address(host, port))
        return _open_address(settings, "0.0.0.0", port, False, warn)
    address = BoundAddress(host, first.getsockname()[1], kind.is_wildcard, [first])
    with ExitStack() as undo:
        undo.callback(address.close)
        try:
            _open_other_listeners(address, kind, settings.worker_count)
            _open_tids(address, kind, settings)
        except OSError as error:
            raise _bind_error(host, address.port, error) from error
        undo.pop_all()
    return address


def _open_given(settings: Settings, given: Sequence[socket.socket], warn: Warn) -> list[BoundAddress]:
    of_address: dict[Any, list[socket.socket]] = {}
    for sock in given:
        of_address.setdefault(sock.getsockname(), []).append(sock)
    if len(of_address) > MAX_ADDRESSES:
        raise ConfigError(f"LISTEN_FDS: at most {MAX_ADDRESSES} addresses, got {len(of_address)}")
    with ExitStack() as undo:
        addresses = []
        for listeners in of_address.values():
            address = _open_beside(settings, listeners, undo, warn)
            addresses.append(address)
        _warn_of_small_buffers(given[0], settings.performance.platform.socket, warn)
        undo.pop_all()
    return addresses


def _open_beside(settings: Settings, listeners: list[socket.socket], undo: ExitStack, warn: Warn) -> BoundAddress:
    """Open what belongs to the sockets of one address: siblings for the other workers, and TID sockets."""
    first = listeners[0]
    host, port = first.getsockname()[:2]
    dual_stack = first.family == socket.AF_INET6 and not first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    kind = _kind_of(host, port, dual_stack, settings.performance.platform.socket)
    address = BoundAddress(host, port, kind.is_wildcard)
    undo.callback(address.close)
    if len(listeners) > settings.worker_count:
        raise ConfigError(f"LISTEN_FDS: {len(listeners)} sockets of {address.text}; set workers to as many")
    try:
        address.listeners = [_bind(kind, port, given=sock) for sock in listeners]
        try:
            _open_other_listeners(address, kind, settings.worker_count)
        except OSError:  # only the user who bound the first may bind a second one, and below 1024 not even that
            warn(
                "only some workers can listen, since the socket was bound by somebody else",
                address=address.text,
                listening=len(address.listeners),
                workers=settings.worker_count,
                remedy="ReusePort=yes, and ListenDatagram= once for each worker",
            )
        _open_tids(address, kind, settings)
    except OSError as error:
        raise _bind_error(host, port, error) from error
    return address


def _open_other_listeners(address: BoundAddress, kind: _Kind, workers: int) -> None:
    """The first socket is bound alone, then opens its port to its siblings."""
    if workers > len(address.listeners):
        address.listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for _ in range(len(address.listeners), workers):
        address.listeners.append(_bind(kind, address.port, reuse_port=True))


def _open_tids(address: BoundAddress, kind: _Kind, settings: Settings) -> None:
    for worker in range(settings.worker_count):
        pool: list[socket.socket] = []
        address.tids.append(pool)
        if settings.single_port:
            continue
        for port in _tid_ports(settings, worker):
            if len(pool) == settings.tid_sockets:
                break
            try:
                pool.append(_bind(kind, port))
            except OSError as error:
                if port == 0 or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
        # Without recvmmsg a receive is one datagram, so nothing may join them. Decided here, once: on a running
        # server trains may be queued, and what the kernel no longer marks as a train would pass for one datagram.
        if settings.write_config.enabled and settings.performance.platform.batch.enable_recvmmsg:
            address.joins_datagrams = all(join_datagrams(tid) for tid in pool)
        if not pool:
            raise ConfigError(f"tid_ports: no free port for {address.text} in {settings.tid_ports}; widen the range")


def _tid_ports(settings: Settings, worker: int) -> Iterable[int]:
    """The ports to try for one worker; ranges are dealt out like cards, so shares differ by one at most."""
    if settings.tid_port_range is None:
        return [0] * settings.tid_sockets
    first, last = settings.tid_port_range
    return range(first + worker, last + 1, settings.worker_count)


def _kind_of(host: str, port: int, dual_stack: bool, buffers: SocketSettings) -> _Kind:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror as error:  # a zone, as in fe80::1%eth9, that does not exist
        raise ConfigError(f"bind_addr: {format_address(host, port)}: {error.strerror}") from error
    family, _, _, _, sockaddr = found[0]
    return _Kind(family, sockaddr, dual_stack, host in ("0.0.0.0", "::"), buffers)


def _bind(kind: _Kind, port: int, *, reuse_port: bool = False, given: socket.socket | None = None) -> socket.socket:
    """Return a bound socket with all that it needs; `given` is bound already."""
    with ExitStack() as undo:
        sock = given or socket.socket(kind.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        undo.callback(sock.close)
        if kind.family == socket.AF_INET6 and not given:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not kind.dual_stack)
        if kind.is_wildcard:
            tell_local_address(sock)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        enlarge(sock, socket.SO_RCVBUF, _buffer_bytes(kind.buffers.recv_buffer_kb))
        enlarge(sock, socket.SO_SNDBUF, _buffer_bytes(kind.buffers.send_buffer_kb))
        if not given:
            sock.bind((kind.sockaddr[0], port, *kind.sockaddr[2:]))
        undo.pop_all()
    return sock


def _buffer_bytes(size_kb: int) -> int:
    return min(size_kb * 1024, _MAX_BUFFER_BYTES)


def _warn_of_small_buffers(sock: socket.socket, asked: SocketSettings, warn: Warn) -> None:
    for option, size_kb, sysctl in (
        (socket.SO_RCVBUF, asked.recv_buffer_kb, "net.core.rmem_max"),
        (socket.SO_SNDBUF, asked.send_buffer_kb, "net.core.wmem_max"),
    ):
        wanted_bytes = _buffer_bytes(size_kb)
        # The kernel answers with the double that it reserves for its own bookkeeping (socket(7)).
        granted_bytes = sock.getsockopt(socket.SOL_SOCKET, option) // 2
        if granted_bytes < wanted_bytes:
            warn(
                "socket buffer smaller than asked, a storm of requests may overflow it",
                granted_bytes=granted_bytes,
                asked_bytes=wanted_bytes,
                remedy=f"sysctl -w {sysctl}={wanted_bytes}",
            )


def _bind_error(host: str, port: int, error: OSError) -> EngineError:
    remedies = {
        errno.EADDRINUSE: "another server has the port; stop it, or choose another port",
        errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or choose a higher port",
        errno.EADDRNOTAVAIL: "no interface of this machine has the address",
        errno.EMFILE: "raise the limit of open files (ulimit -n), or lower tid_sockets or workers",
    }
    what = f"cannot listen on {format_address(host, port)}"
    remedy = remedies.get(error.errno or 0)
    text = f"{what}: {error.strerror}; {remedy}" if remedy else with_remedy(what, error)
    return EngineError(error.errno, text)
