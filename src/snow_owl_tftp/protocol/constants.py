"""The numbers of TFTP, each with the document that sets it.

Invariant: a value here is fixed by an RFC, or is a default that a caller may override; nothing is
tuned here. RFC 2347, 2348 and 2349 have no section numbers, so their headings are cited.
"""

from enum import IntEnum
from typing import Final

__all__ = [
    "DEFAULT_BLKSIZE_BYTES",
    "DEFAULT_WINDOWSIZE_BLOCKS",
    "DEFAULT_WINDOW_MAX_BYTES",
    "HEADER_BYTES",
    "MAX_BLKSIZE_BYTES",
    "MAX_BLOCK",
    "MAX_REQUEST_BYTES",
    "MAX_TIMEOUT_S",
    "MAX_TSIZE_BYTES",
    "MAX_UTIMEOUT_US",
    "MAX_WINDOWSIZE_BLOCKS",
    "MIN_BLKSIZE_BYTES",
    "MIN_TIMEOUT_S",
    "MIN_UTIMEOUT_US",
    "MIN_WINDOWSIZE_BLOCKS",
    "ErrorCode",
    "Opcode",
]


class Opcode(IntEnum):
    """The first two bytes of every packet (RFC 1350 section 5; OACK: RFC 2347, Packet Formats)."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(IntEnum):
    """Codes of an ERROR packet (RFC 1350 appendix; 8: RFC 2347, Packet Formats)."""

    NOT_DEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TID = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTION_REFUSED = 8


HEADER_BYTES: Final = 4
"""Opcode and block of DATA and ACK, opcode and code of ERROR (RFC 1350 section 5)."""

MAX_BLOCK: Final = 65535
"""Largest block on the wire: the field has 16 bits (RFC 1350 section 5)."""

MAX_REQUEST_BYTES: Final = 512
"""Largest RRQ or WRQ (RFC 2347, Packet Formats)."""

DEFAULT_BLKSIZE_BYTES: Final = 512
"""Payload of a full DATA when no blksize was negotiated (RFC 1350 section 2)."""

MIN_BLKSIZE_BYTES: Final = 8
"""RFC 2348, Blocksize Option Specification."""

MAX_BLKSIZE_BYTES: Final = 65464
"""RFC 2348, Blocksize Option Specification."""

MIN_TIMEOUT_S: Final = 1
"""RFC 2349, Timeout Interval Option Specification."""

MAX_TIMEOUT_S: Final = 255
"""RFC 2349, Timeout Interval Option Specification."""

MIN_UTIMEOUT_US: Final = 10_000
"""`utimeout`, the `timeout` of RFC 2349 in microseconds: of tftpd-hpa (its manual page), no RFC has it."""

MAX_UTIMEOUT_US: Final = 255_000_000
"""See MIN_UTIMEOUT_US."""

DEFAULT_WINDOWSIZE_BLOCKS: Final = 1
"""Lock-step, when no windowsize was negotiated (RFC 7440 section 3)."""

MIN_WINDOWSIZE_BLOCKS: Final = 1
"""RFC 7440 section 3."""

MAX_WINDOWSIZE_BLOCKS: Final = 65535
"""RFC 7440 section 3."""

MAX_TSIZE_BYTES: Final = 2**63 - 1
"""Largest file offset of Linux (a signed off_t of 64 bits); RFC 2349 sets no limit."""

DEFAULT_WINDOW_MAX_BYTES: Final = 2 * 1024 * 1024
"""Default cap of windowsize times blksize. 65535 blocks of 65464 bytes would be 4 GiB in flight
for one transfer; 2 MiB fill a link of 1 Gbit/s at 16 ms round trip."""
