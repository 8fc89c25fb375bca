"""How a transfer's request goes out: where to, with which options, from which socket, by which plan.

May know: packets, sockets, the engine's `ask`. Must not: read events, or wait for anything but the routing table.
Invariants: a request that cannot be sent raises, and leaves no descriptor behind; what servers were found to be is
remembered here and nowhere else. The client's lock guards all of it.
"""

import contextlib
import math
import os
import time
from typing import Any

from snow_owl_tftp.client.address import ServerAddress, is_no_descriptor, open_socket, route_blksize
from snow_owl_tftp.client.attempt import Remembered, attempts_at, patience_s
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.transfer import Step, Transfer
from snow_owl_tftp.plan.transfer import Role, TransferPlan
from snow_owl_tftp.protocol.constants import DEFAULT_BLKSIZE_BYTES, DEFAULT_WINDOWSIZE_BLOCKS, Opcode
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Option, build_request

__all__ = ["Asking"]

_ROUTE_S = 30.0
"""How long the blksize of a route is remembered: path MTU discovery forgets after ten minutes (ip(7))."""
_ANSWERS_OPTIONS_S = 300.0
"""Long enough for the files of one boot or one run; a server that was replaced is noticed within five minutes."""
_PROBE_BYTES = DEFAULT_BLKSIZE_BYTES - 1
"""A first block of at most so many bytes is the whole file and tells its size. A longer file is not fetched."""


class Asking:
    """Sends requests.

    Args:
        engine: Of the client.
        settings: Of the client.
    """

    def __init__(self, engine: Any, settings: ClientSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._route_blksizes: Remembered[int] = Remembered(_ROUTE_S)
        self._answers_options: Remembered[bool] = Remembered(_ANSWERS_OPTIONS_S)

    def check(self, transfer: Transfer) -> None:
        """Raise now what `send` would raise later for a request that fits no packet."""
        self._request(transfer, DEFAULT_BLKSIZE_BYTES, plain=self._settings.no_options)

    def send(self, transfer: Transfer) -> None:
        """Ask in the first way for which there is a route.

        Raises:
            OSError: There is none; no descriptor is left.
            ValueError: The request fits no packet.
        """
        if transfer.open_target is not None:
            transfer.target, transfer.open_target = transfer.open_target(), None
        if not transfer.attempts:
            no_options = self._settings.no_options
            transfer.attempts = attempts_at(transfer.addresses, self._answers_options, no_options=no_options)
            transfer.began_s = time.monotonic()
        while True:
            try:
                self._send_to(transfer, transfer.attempts[0].address)
            except OSError as error:
                if len(transfer.attempts) == 1 or is_no_descriptor(error):
                    raise
                del transfer.attempts[0]
            else:
                return

    def plan(self, transfer: Transfer, first_packet: bytes = b"") -> TransferPlan:
        """With a request: how to begin, by RFC 1350. Without one: how to go on, with what the server granted."""
        fd, size_bytes = -1, 0
        if first_packet and transfer.source is not None:
            # The engine takes it over, and a second attempt needs it too.
            fd, size_bytes = os.dup(transfer.source.fd), transfer.source.size_bytes
        elif first_packet and transfer.target is not None:
            fd = transfer.target.fd
            if transfer.asked_total:  # DATA may have come in the moment in which its attempt was left
                with contextlib.suppress(OSError):  # a device has no length
                    os.ftruncate(fd, 0)
            size_bytes = _PROBE_BYTES if transfer.is_probe else self._settings.max_size_bytes
        return TransferPlan(
            transfer_id=0,
            role=int(transfer.role),
            fd=fd,
            size_bytes=size_bytes,
            blksize_bytes=transfer.negotiated.blksize_bytes,
            windowsize_blocks=transfer.negotiated.windowsize_blocks,
            timeout_ns=self._settings.initial_ns if self._settings.timeout else 0,
            first_packet=first_packet,
            declared_bytes=transfer.negotiated.tsize if transfer.role == Role.RECEIVER else None,
            context=transfer,
        )

    def note_answer(self, transfer: Transfer) -> None:
        """The server has answered: this attempt goes on; a server that answers only without options is remembered."""
        transfer.due_s = math.inf
        address, plain = transfer.attempts[0].address, transfer.attempts[0].plain
        if transfer.asked:
            self._answers_options.put(address, True)
        elif plain and not self._settings.no_options and self._answers_options.get(address) is None:
            self._answers_options.put(address, False)

    def _send_to(self, transfer: Transfer, address: ServerAddress) -> None:
        blksize = self._settings.blksize or self._route_blksize(address)
        transfer.negotiated = Negotiated()
        request = self._request(transfer, blksize, plain=transfer.attempts[0].plain)
        if not transfer.asked:  # another attempt without options would be the same again
            transfer.attempts[1:] = [attempt for attempt in transfer.attempts[1:] if attempt.address != address]
        sock, gro = open_socket(address, self._settings, receives=transfer.role == Role.RECEIVER)
        try:
            plan = self.plan(transfer, first_packet=request)
        except BaseException:
            os.close(sock)
            raise
        now_s = time.monotonic()
        transfer.due_s = now_s + patience_s(transfer.attempts, self._settings, spent_s=now_s - transfer.began_s)
        self._engine.ask(plan, sock, address.packed, gro=gro)
        transfer.move(Step.ASK)

    def _request(self, transfer: Transfer, blksize: int, *, plain: bool) -> bytes:
        kind = Opcode.RRQ if transfer.role == Role.RECEIVER else Opcode.WRQ
        transfer.asked = () if plain else self._options(transfer, blksize)
        try:
            return build_request(kind, transfer.name, transfer.mode, transfer.asked)
        except ValueError:
            if not transfer.asked:
                raise
            transfer.asked = ()  # a long name leaves no room for options
            return build_request(kind, transfer.name, transfer.mode)

    def _options(self, transfer: Transfer, blksize: int) -> tuple[Option, ...]:
        if transfer.is_probe:
            return (("tsize", "0"),) if transfer.mode == "octet" else ()
        wanted: list[Option] = []
        if blksize != DEFAULT_BLKSIZE_BYTES:
            wanted.append(("blksize", str(blksize)))
        if self._settings.windowsize != DEFAULT_WINDOWSIZE_BLOCKS:
            wanted.append(("windowsize", str(self._settings.windowsize)))
        if self._settings.asked_timeout_s is not None:
            wanted.append(("timeout", str(self._settings.asked_timeout_s)))
        # In netascii servers disagree whether tsize counts bytes of the file or of the wire, and tftpd-hpa refuses it.
        if transfer.source is not None:
            wanted.append(("tsize", str(transfer.source.size_bytes)))
        elif transfer.mode == "octet":
            wanted.append(("tsize", "0"))
        return tuple(wanted)

    def _route_blksize(self, address: ServerAddress) -> int:
        blksize = self._route_blksizes.get(address)
        if blksize is None:
            blksize = route_blksize(address)
            self._route_blksizes.put(address, blksize)
        return blksize
