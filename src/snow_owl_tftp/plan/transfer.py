"""What crosses the border between Python and the engine: the frozen plan of one transfer.

Python decides everything about a transfer before it starts and writes it down here; the engine repeats
nothing of that thinking.  Ints, bytes and descriptors only, but for `context`, an object that the engine
hands back unread with the events of the transfer.  docs/engine-contract.md is the specification.

This module knows no socket, no file and no engine; the engine's own constants are compared with these
by a test.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from msgspec import Struct

from snow_owl_tftp.protocol.constants import DEFAULT_BLKSIZE_BYTES, DEFAULT_WINDOWSIZE_BLOCKS

CONTRACT_VERSION = 3
NO_SINK_YET = -1
"""`fd` of a receiver whose file is opened when its first DATA is here."""


class Role(IntEnum):
    """Who sends the data: the sender answers ACKs with DATA, the receiver the other way round."""

    SENDER = 0
    RECEIVER = 1


class Outcome(IntEnum):
    """How a transfer ended; the numbers are the engine's."""

    OK = 0
    TIMED_OUT = 1
    PEER_ERROR = 2
    LOCAL_IO_ERROR = 3
    CHANGED = 4
    ABORTED = 5
    UNREACHABLE = 6


class TransferPlan(Struct, frozen=True):
    """One transfer, decided.

    Args:
        transfer_id: of the engine's Request; 0 for a transfer of our own asking.
        role: SENDER (we have the file) or RECEIVER.
        fd: source (taken over by the engine) or sink (the caller's; closed after the Completion; NO_SINK_YET: FirstData
            asks for it).
        size_bytes: source: its exact size; sink: the most that is accepted, 0: no limit.
        blksize_bytes: 8..65464, as negotiated (RFC 2348).
        windowsize_blocks: 1..65535, as negotiated (RFC 7440).
        timeout_ns: the negotiated timeout (RFC 2349), kept as asked; 0: the timer follows the measured RTT.
        first_packet: the ready-made OACK or request; b"" where DATA 1 or ACK 0 begins.
        declared_bytes: sink: the tsize that the sender announced; None: it did not.
        stream: sender: `fd` is the non-blocking read end of a pipe whose end makes the last block;
            size_bytes is not used.
        compare: receiver: `fd` is a descriptor of the expected content (the engine's from here on); the
            payload is compared with it, nothing is written, the last ACK leaves without a commit.
        expected_oack: our own asking: an OACK of exactly these bytes needs no decision; blksize_bytes and
            windowsize_blocks are what it grants.
        rollover: what follows block 65535, 0 or 1; with 1 windowsize_blocks is at most 65534. A receiver in lock-step
            finds out by itself what an RFC 1350 sender does.
        context: any object; comes back in the Completion.
    """

    transfer_id: int
    role: int
    fd: int
    size_bytes: int
    blksize_bytes: int = DEFAULT_BLKSIZE_BYTES
    windowsize_blocks: int = DEFAULT_WINDOWSIZE_BLOCKS
    timeout_ns: int = 0
    first_packet: bytes = b""
    declared_bytes: int | None = None
    stream: bool = False
    compare: bool = False
    expected_oack: bytes = b""
    rollover: int = 0
    context: Any = None
