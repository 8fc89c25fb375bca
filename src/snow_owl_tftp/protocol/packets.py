"""Datagrams to packets and back.

Knows the byte layouts and nothing of options' meaning, of transfers or of files.

Invariants:
- A function named `_untrusted` reads a peer's bytes and raises BadPacket or nothing. The reason
  it gives holds no byte of the peer's, so it may be logged and sent.
- Whatever a `build_` function returns parses back to what it was built from. What cannot is
  refused with ValueError: it is our own caller who erred.
- A packet holds what was sent, as it was sent. Which spelling of an option counts, and which of
  two, is for `options` to say.

A request is parsed once per transfer and by the thousand in a boot storm, so the common one takes
the short way: one decode, one split, no loop over its bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

from snow_owl_tftp.errors import BadPacket
from snow_owl_tftp.protocol.constants import (
    HEADER_BYTES,
    MAX_BLOCK,
    MAX_REQUEST_BYTES,
    ErrorCode,
    Opcode,
)

__all__ = [
    "Ack",
    "Data",
    "Error",
    "Oack",
    "Option",
    "Packet",
    "Request",
    "build_ack",
    "build_data",
    "build_error",
    "build_oack",
    "build_request",
    "parse_ack_untrusted",
    "parse_data_untrusted",
    "parse_error_untrusted",
    "parse_oack_untrusted",
    "parse_request_untrusted",
    "parse_untrusted",
    "refuse_malformed_untrusted",
]

Option: TypeAlias = tuple[str, str]
"""Name and value of an option, spelled as on the wire."""


# RFC 1350 section 5, RFC 2347 "Packet Formats"
#
#     2 bytes      string  1    string  1    string  1    string  1
#    +----+----+---~~---+---+---~~---+---+---~~---+---+---~~---+---+--
#    | 0  |1, 2|filename| 0 |  mode  | 0 |  name  | 0 | value  | 0 | ...
#    +----+----+---~~---+---+---~~---+---+---~~---+---+---~~---+---+--
@dataclass(frozen=True, slots=True)
class Request:
    """An RRQ or WRQ.

    Attributes:
        kind: Opcode.RRQ or Opcode.WRQ.
        filename: As sent, never empty; may hold anything but NUL, line breaks included. Bytes that are no UTF-8
            are lone surrogates, as os.fsdecode makes them, so that every name leads back to its bytes.
        mode: 'octet' or 'netascii', in lower case.
        options: Pairs in the order sent, repeated and unknown ones included.
    """

    kind: Opcode
    filename: str
    mode: str
    options: tuple[Option, ...] = ()


# RFC 1350 section 5
#
#     2 bytes   2 bytes   0 to blksize bytes
#    +----+----+----+----+---~~---+
#    | 0  | 3  |  block  | payload|
#    +----+----+----+----+---~~---+
@dataclass(frozen=True, slots=True)
class Data:
    """A DATA packet.

    Attributes:
        block: 0..65535, as on the wire.
        payload: Shorter than blksize in the last one; no limit is checked here, since blksize
            belongs to the transfer.
    """

    block: int
    payload: bytes


# RFC 1350 section 5
#
#     2 bytes   2 bytes
#    +----+----+----+----+
#    | 0  | 4  |  block  |
#    +----+----+----+----+
@dataclass(frozen=True, slots=True)
class Ack:
    """An ACK packet.

    Attributes:
        block: 0..65535, as on the wire.
    """

    block: int


# RFC 1350 section 5
#
#     2 bytes   2 bytes    string  1
#    +----+----+----+----+---~~---+---+
#    | 0  | 5  |   code  |  text  | 0 |
#    +----+----+----+----+---~~---+---+
@dataclass(frozen=True, slots=True)
class Error:
    """An ERROR packet.

    Attributes:
        code: 0..65535; an ErrorCode if the peer keeps to the RFCs.
        text: For a human, and untrusted: it may hold control characters.
    """

    code: int
    text: str


# RFC 2347 "Packet Formats"
#
#     2 bytes    string  1    string  1
#    +----+----+---~~---+---+---~~---+---+--
#    | 0  | 6  |  name  | 0 | value  | 0 | ...
#    +----+----+---~~---+---+---~~---+---+--
@dataclass(frozen=True, slots=True)
class Oack:
    """An OACK packet.

    Attributes:
        options: Pairs in the order sent, repeated and unknown ones included.
    """

    options: tuple[Option, ...]


Packet: TypeAlias = Request | Data | Ack | Error | Oack

# `mail` is obsolete (RFC 1350 section 1) and names a mailbox, not a file.
_MODES: Final = frozenset({"octet", "netascii"})

_KINDS: Final[Mapping[bytes, Opcode]] = {b"\0\1": Opcode.RRQ, b"\0\2": Opcode.WRQ}
_DATA: Final = b"\0\3"
_ACK: Final = b"\0\4"
_ERROR: Final = b"\0\5"
_OACK: Final = b"\0\6"
_SHORTEST_ERROR_BYTES: Final = HEADER_BYTES + 1


def parse_request_untrusted(datagram: bytes, *, max_request_bytes: int = MAX_REQUEST_BYTES) -> Request:
    """Read an RRQ or WRQ.

    Args:
        datagram: What arrived at the request port.
        max_request_bytes: Longest datagram to read.

    Raises:
        BadPacket: It is neither, or malformed, or its mode is not octet or netascii.

    Spec: RFC 1350 section 5; RFC 2347, Packet Formats.

    Deviates:
        - NULs after the last option are padding: some ROMs send their whole buffer
          (test_trailing_nuls_are_padding), and it may be longer than a request.
        - What is no option among the options is passed over, as tftpd-hpa does: a name without a value at the
          end, a value without a name. No client has a second plan (test_what_is_no_option_is_passed_over).
        - Strings are UTF-8, of which the ASCII of the RFC is a subset; other bytes pass too: files
          have such names, and an option of which nobody knows is no reason to refuse a file
          (test_bytes_that_are_no_utf8_pass).
    """
    kind = _KINDS.get(datagram[:2])
    if kind is None:
        raise BadPacket("not an RRQ or WRQ")
    if len(datagram) > max_request_bytes and len(datagram.rstrip(b"\0")) >= max_request_bytes:
        raise BadPacket("request too long")
    text = datagram[2:].decode("utf-8", "surrogateescape")
    filename, mode, *fields = _split_strings_untrusted(text, at_least=2)
    if not filename:
        raise BadPacket("no filename")
    mode = mode.lower()
    if mode not in _MODES:
        raise BadPacket("unknown mode")
    return Request(kind, filename, mode, _find_options(fields) if fields else ())


def parse_data_untrusted(datagram: bytes) -> Data:
    """Read a DATA. Raises: BadPacket. Spec: RFC 1350 section 5."""
    return Data(_parse_header_untrusted(datagram, _DATA), datagram[HEADER_BYTES:])


def parse_ack_untrusted(datagram: bytes) -> Ack:
    """Read an ACK. Raises: BadPacket. Spec: RFC 1350 section 5.

    Bytes after the block are ignored, as every common server does: they carry no meaning, and a
    client that sends a padded buffer would otherwise time out.
    """
    return Ack(_parse_header_untrusted(datagram, _ACK))


def parse_error_untrusted(datagram: bytes) -> Error:
    """Read an ERROR. Raises: BadPacket. Spec: RFC 1350 section 5.

    The text may be unterminated or no UTF-8 at all: the code has been understood, and a peer that
    gives up is believed whatever its prose.
    """
    code = _parse_header_untrusted(datagram, _ERROR)
    text, _, _ = datagram[HEADER_BYTES:].partition(b"\0")
    return Error(code, text.decode("utf-8", "replace"))


def parse_oack_untrusted(datagram: bytes) -> Oack:
    """Read an OACK; NULs after its last option are padding, as in a request.

    Raises:
        BadPacket: It is no OACK, or malformed.

    Spec: RFC 2347, Packet Formats.
    """
    if datagram[:2] != _OACK:
        raise BadPacket("not an OACK")
    try:
        text = datagram[2:].decode()
    except UnicodeDecodeError:
        raise BadPacket("not UTF-8") from None
    return Oack(_pair_options_untrusted(_split_strings_untrusted(text, at_least=0)))


_PARSERS: Final[Mapping[bytes, Callable[[bytes], Packet]]] = {
    **dict.fromkeys(_KINDS, parse_request_untrusted),
    _DATA: parse_data_untrusted,
    _ACK: parse_ack_untrusted,
    _ERROR: parse_error_untrusted,
    _OACK: parse_oack_untrusted,
}


def parse_untrusted(datagram: bytes) -> Packet:
    """Read any packet.

    Raises:
        BadPacket: Its opcode is unknown, or what follows does not fit the opcode.
    """
    parse = _PARSERS.get(datagram[:2])
    if parse is None:
        raise BadPacket("unknown opcode")
    return parse(datagram)


def refuse_malformed_untrusted(datagram: bytes, reason: str) -> bytes | None:
    """Say what to answer when the request port received something that is no request.

    Args:
        datagram: What arrived and did not parse.
        reason: BadPacket.reason, which becomes the text of the ERROR.

    Returns:
        An ERROR 4 for a malformed RRQ or WRQ and for an opcode nobody defined, or None for
        silence. DATA, ACK, ERROR and OACK get silence: two servers that answer them can be set on
        each other for ever by one forged datagram (the class of CVE-2024-2169).

        The source address may be forged, so the answer is no longer than the datagram: the text
        is cut to fit. Only below the 5 bytes that the shortest ERROR takes is it longer.
    """
    opcode = datagram[:2]
    if len(opcode) < 2 or opcode in (_DATA, _ACK, _ERROR, _OACK):
        return None
    room = max(0, len(datagram) - _SHORTEST_ERROR_BYTES)
    return build_error(ErrorCode.ILLEGAL_OPERATION, reason[:room])


def build_request(kind: Opcode, filename: str, mode: str = "octet", options: Sequence[Option] = ()) -> bytes:
    """Build an RRQ or WRQ from the fields of Request.

    Raises:
        ValueError: The result would not parse back to them: `kind` is another opcode, `mode` is
            not 'octet' or 'netascii', a string that must not be empty is, one holds a NUL or
            cannot be encoded, or the sum exceeds 512 bytes.
    """
    if kind not in (Opcode.RRQ, Opcode.WRQ):
        raise ValueError(f"not a request opcode: {kind!r}")
    if mode not in _MODES:
        raise ValueError(f"not a transfer mode: {mode!r}")
    if not filename:
        raise ValueError("empty filename")
    opcode = kind.to_bytes(2, "big")
    datagram = opcode + _build_strings(filename, mode) + _build_options(options)
    if len(datagram) > MAX_REQUEST_BYTES:
        raise ValueError(f"request of {len(datagram)} bytes exceeds {MAX_REQUEST_BYTES}")
    return datagram


def build_data(block: int, payload: bytes) -> bytes:
    """Build a DATA. Raises: ValueError if `block` is outside 0..65535."""
    return _DATA + _build_uint16(block) + payload


def build_ack(block: int) -> bytes:
    """Build an ACK. Raises: ValueError if `block` is outside 0..65535."""
    return _ACK + _build_uint16(block)


def build_error(code: int, text: str = "") -> bytes:
    """Build an ERROR; one byte per character of `text`, plus 5.

    The text never makes it fail, because it is what reports a failure: characters outside ASCII
    (RFC 1350 section 5 asks for netascii) become '?', a NUL becomes a space.

    Raises:
        ValueError: `code` is outside 0..65535.
    """
    message = text.encode("ascii", "replace").replace(b"\0", b" ")
    return _ERROR + _build_uint16(code) + message + b"\0"


def build_oack(options: Sequence[Option]) -> bytes:
    """Build an OACK; what a request held in bytes that are not UTF-8 leaves as it came.

    Raises:
        ValueError: A name is empty, or a string holds a NUL.
    """
    return _OACK + _build_options(options)


def _parse_header_untrusted(datagram: bytes, opcode: bytes) -> int:
    if datagram[:2] != opcode:
        raise BadPacket("wrong opcode")
    if len(datagram) < HEADER_BYTES:
        raise BadPacket("shorter than its header")
    return int.from_bytes(datagram[2:HEADER_BYTES], "big")


def _split_strings_untrusted(text: str, *, at_least: int) -> list[str]:
    strings = text.split("\0")
    if strings.pop():
        raise BadPacket("unterminated string")
    if len(strings) < at_least:
        raise BadPacket("no filename or mode")
    return strings


def _find_options(fields: list[str]) -> tuple[Option, ...]:
    """What is an option among the strings behind the mode of a request."""
    # zip() leaves a name without a value out.
    return tuple([(name, value) for name, value in zip(fields[::2], fields[1::2], strict=False) if name])


def _pair_options_untrusted(fields: list[str]) -> tuple[Option, ...]:
    names = fields[::2]
    if "" in names:
        # An empty name ends the options; what follows must be padding, or we lost the framing.
        end = 2 * names.index("")
        if any(fields[end:]):
            raise BadPacket("empty option name")
        del fields[end:]
    elif len(fields) % 2:
        raise BadPacket("option without a value")
    return tuple(zip(fields[::2], fields[1::2], strict=True))


def _build_uint16(number: int) -> bytes:
    if not 0 <= number <= MAX_BLOCK:
        raise ValueError(f"not a 16-bit number: {number}")
    return number.to_bytes(2, "big")


def _build_strings(*texts: str) -> bytes:
    joined = "\0".join((*texts, ""))
    if joined.count("\0") != len(texts):
        raise ValueError("a TFTP string cannot hold a NUL")
    return joined.encode("utf-8", "surrogateescape")


def _build_options(options: Sequence[Option]) -> bytes:
    if "" in [name for name, _ in options]:
        raise ValueError("empty option name")
    return _build_strings(*chain.from_iterable(options))
