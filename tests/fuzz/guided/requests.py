"""What arrives at the request port: it is parsed, negotiated and answered, or refused by BadPacket and nothing else.

A script is two bytes, which choose what the server grants and what the file's size is, and then the datagram.
"""

from contextlib import suppress

from tests.fuzz.guided.script import Script

from snow_owl_tftp.content.names import (
    MAX_SPELLINGS,
    Names,
    climbs_above_root,
    fold,
    normalise_name,
    spellings_of,
)
from snow_owl_tftp.errors import BadPacket, RefusedError
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.oack import accept_oack_untrusted
from snow_owl_tftp.protocol.options import Negotiated, OptionLimits, asks_for_fragments, negotiate
from snow_owl_tftp.protocol.packets import (
    Ack,
    Data,
    Error,
    Oack,
    Packet,
    Request,
    build_ack,
    build_data,
    build_error,
    build_oack,
    build_request,
    parse_untrusted,
    refuse_malformed_untrusted,
)

LIMITS = [
    OptionLimits(),
    OptionLimits(max_blksize_bytes=1000, max_windowsize_blocks=7, max_window_bytes=5000),
    OptionLimits(allow_blksize=False, allow_tsize=False),
    OptionLimits(allow_timeout=False, allow_windowsize=False, allow_extensions=False),
    OptionLimits(max_window_bytes=1),
]
NAMES = Names(root=b"/srv/tftp", encodings=["iso8859-1", "cp437"], in_lower_case=True)
SIZES = [None, 0, 1, 511, 512, 1 << 32, (1 << 63) - 1]
ASKED = (
    ("blksize", "1428"),
    ("WindowSize", "64"),
    ("timeout", "3"),
    ("tsize", "0"),
    ("rollover", "1"),
    ("cookie", "7"),
)
SHORTEST_ERROR_BYTES = 5


def check(data: bytes) -> None:
    """Raises AssertionError, or whatever should not have risen."""
    script = Script(data)
    limits, size_bytes, mtu_bytes = script.pick(LIMITS), script.pick(SIZES), script.pick([None, 1500, 576])
    datagram = script.rest()
    try:
        packet = parse_untrusted(datagram)
    except BadPacket as bad:
        check_refusal(datagram, bad)
        return
    check_again(packet)
    if isinstance(packet, Request):
        check_names(packet.filename)
        check_negotiation(packet, negotiate(packet, size_bytes=size_bytes, limits=limits, mtu_bytes=mtu_bytes), limits)
    elif isinstance(packet, Oack):
        check_acceptance(datagram)


def check_refusal(datagram: bytes, bad: BadPacket) -> None:
    assert bad.reason.isascii()
    assert bad.reason.isprintable()
    answer = refuse_malformed_untrusted(datagram, bad.reason)
    if answer is not None:
        assert len(answer) <= max(len(datagram), SHORTEST_ERROR_BYTES), "a forged address gets no more than it sent"
        assert answer[:4] == b"\0\5\0\4"


def check_again(packet: Packet) -> None:
    """What is built of a packet is that packet."""
    if isinstance(packet, Request):
        try:
            built = build_request(packet.kind, packet.filename, packet.mode, packet.options)
        except ValueError:
            return  # longer than 512 bytes: there was padding, or an option was written shorter
    elif isinstance(packet, Data):
        built = build_data(packet.block, packet.payload)
    elif isinstance(packet, Ack):
        built = build_ack(packet.block)
    elif isinstance(packet, Oack):
        built = build_oack(packet.options)
    else:
        assert isinstance(packet, Error)
        built = build_error(packet.code, packet.text)
        packet = Error(packet.code, packet.text.encode("ascii", "replace").decode())
    assert parse_untrusted(built) == packet


def check_names(filename: str) -> None:
    others = NAMES.others_of(filename)
    assert len(others) + 1 <= MAX_SPELLINGS
    assert NAMES.may_mean_more(filename) or not others
    for path in (*spellings_of(filename), *others):
        assert not path.startswith(b"/")
        assert b"\0" not in path
        assert climbs_above_root(path) or b".." not in fold(path).split(b"/")
    with suppress(RefusedError):  # control characters
        assert normalise_name(filename) in spellings_of(filename)


def check_negotiation(request: Request, granted: Negotiated, limits: OptionLimits) -> None:
    assert 8 <= granted.blksize_bytes <= max(512, limits.max_blksize_bytes)
    assert 1 <= granted.windowsize_blocks <= limits.max_windowsize_blocks
    assert granted.windowsize_blocks * granted.blksize_bytes <= max(limits.max_window_bytes, granted.blksize_bytes)
    assert granted.timeout_ns >= 0
    asks_for_fragments(request)
    if not granted.oack:
        assert (granted.accepted, granted.blksize_bytes, granted.windowsize_blocks) == ((), 512, 1)
        return
    if any(not value.isascii() for _, value in granted.accepted):
        return  # a cookie of its own, which no client of ours asks for
    accepted = accept_oack_untrusted(request.options, granted.oack)  # as the client that asked
    agreed = ("blksize_bytes", "windowsize_blocks", "timeout_s", "utimeout_us", "rollover")
    assert [getattr(accepted, name) for name in agreed] == [getattr(granted, name) for name in agreed]
    if request.kind == Opcode.RRQ:
        assert accepted.tsize == granted.tsize


def check_acceptance(datagram: bytes) -> None:
    try:
        agreed = accept_oack_untrusted(ASKED, datagram)
    except BadPacket:
        return
    assert 8 <= agreed.blksize_bytes <= 1428
    assert 1 <= agreed.windowsize_blocks <= 64
    assert agreed.timeout_s in (None, 3)
