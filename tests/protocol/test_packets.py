"""Checklist of the packet formats: what parses to what, what is malformed, and what a malformed request is told."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snow_owl_tftp.errors import BadPacket
from snow_owl_tftp.protocol import packets
from snow_owl_tftp.protocol.constants import MAX_REQUEST_BYTES, ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import (
    Ack,
    Data,
    Error,
    Oack,
    Request,
    build_ack,
    build_data,
    build_error,
    build_oack,
    build_request,
    parse_request_untrusted,
    parse_untrusted,
    refuse_malformed_untrusted,
)

STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
NAMES = STRINGS.filter(bool)
OPTIONS = st.lists(st.tuples(NAMES, STRINGS), max_size=3).map(tuple)
KINDS = st.sampled_from([Opcode.RRQ, Opcode.WRQ])
MODES = st.sampled_from(["octet", "netascii"])
UINT16 = st.integers(0, 65535)
ASCII = st.text(st.characters(max_codepoint=127, exclude_characters="\0"))
REQUESTS = st.builds(Request, KINDS, NAMES, MODES, OPTIONS).filter(
    lambda request: (
        sum(len(text.encode()) + 1 for pair in request.options for text in pair) + len(request.filename.encode())
        <= MAX_REQUEST_BYTES - 12
    )
)

RRQ = b"\0\1pxelinux.0\0octet\0"

MALFORMED = {
    "opcode alone": (b"\0\1", "no filename or mode"),
    "no NUL at all": (b"\0\1file", "unterminated string"),
    "no mode": (b"\0\1file\0", "no filename or mode"),
    "mode without NUL": (b"\0\1file\0octet", "unterminated string"),
    "empty mode": (b"\0\1file\0\0", "unknown mode"),
    "empty filename": (b"\0\1\0octet\0", "no filename"),
    "mail": (b"\0\1file\0mail\0", "unknown mode"),
    "unknown mode": (b"\0\1file\0binary\0", "unknown mode"),
    "mode in another script": ("\0\1file\0ﾈetascii\0".encode(), "unknown mode"),
    "value without NUL": (RRQ + b"blksize\x00512", "unterminated string"),
    "0xFF after the mode": (b"\0\1file\0octet\xff\0", "unknown mode"),
    "513 bytes": (b"\0\1" + b"f" * 504 + b"\0octet\0", "request too long"),
}


@pytest.mark.parametrize(
    ("tail", "options"),
    [
        (b"blksize\0", ()),
        (b"blksize\x00512\0tsize\0", (("blksize", "512"),)),
        (b"\x00512\0", ()),
        (b"\0\0blksize\x00512\0", (("blksize", "512"),)),
        (b"\0\0\0blksize\x00512\0", ()),
        (b"x\0\0blksize\x00512\0\0\0\0", (("x", ""), ("blksize", "512"))),
        (b"blk\xc3\x00512\0tsize\x000\0", (("blk\udcc3", "512"), ("tsize", "0"))),
        (b"x\0\xff\xfe\0tsize\x000\0", (("x", "\udcff\udcfe"), ("tsize", "0"))),
    ],
)
def test_what_is_no_option_is_passed_over(tail, options):
    assert parse_request_untrusted(RRQ + tail).options == options


@pytest.mark.parametrize("size", [512, 513, 514, 1024, 1500])
def test_padding_may_be_longer_than_a_request(size):
    request = RRQ + b"tsize\x000\0"
    assert parse_request_untrusted(request.ljust(size, b"\0")).options == (("tsize", "0"),)


def test_bytes_of_an_option_leave_as_they_came():
    cookie = b"cookie\0\xff\xfe\0"
    options = parse_request_untrusted(RRQ + cookie).options
    assert build_oack(options) == b"\0\6" + cookie


@given(REQUESTS)
def test_request_parses_back_to_what_was_built(request):
    datagram = build_request(request.kind, request.filename, request.mode, request.options)
    assert parse_request_untrusted(datagram) == request
    assert parse_untrusted(datagram) == request


@given(UINT16, st.binary(max_size=600))
def test_data_parses_back_to_what_was_built(block, payload):
    assert parse_untrusted(build_data(block, payload)) == Data(block, payload)


@given(UINT16)
def test_ack_parses_back_to_what_was_built(block):
    assert parse_untrusted(build_ack(block)) == Ack(block)


@given(UINT16, ASCII)
def test_error_parses_back_to_what_was_built(code, text):
    assert parse_untrusted(build_error(code, text)) == Error(code, text)


@given(OPTIONS)
def test_oack_parses_back_to_what_was_built(options):
    assert parse_untrusted(build_oack(options)) == Oack(options)


def test_bytes_on_the_wire_are_those_of_the_rfcs():
    assert build_request(Opcode.RRQ, "a", "octet", [("tsize", "0")]) == b"\0\1a\0octet\0tsize\x000\0"
    assert build_request(Opcode.WRQ, "ä") == b"\0\2\xc3\xa4\0octet\0"
    assert build_data(258, b"xy") == b"\0\3\1\2xy"
    assert build_ack(65535) == b"\0\4\xff\xff"
    assert build_error(ErrorCode.FILE_NOT_FOUND, "gone") == b"\0\5\0\1gone\0"
    assert build_oack([("blksize", "8"), ("tsize", "")]) == b"\0\6blksize\x008\0tsize\0\0"


def parse_or_reason(parse, datagram):
    """Lets nothing but a BadPacket pass for a refusal."""
    try:
        return parse(datagram)
    except BadPacket as bad:
        return bad.reason


@pytest.mark.parametrize(
    "parse",
    [
        parse_untrusted,
        packets.parse_request_untrusted,
        packets.parse_data_untrusted,
        packets.parse_ack_untrusted,
        packets.parse_error_untrusted,
        packets.parse_oack_untrusted,
    ],
)
@given(datagram=st.binary(max_size=600))
def test_only_bad_packet_escapes_for_arbitrary_bytes(parse, datagram):
    outcome = parse_or_reason(parse, datagram)
    assert not isinstance(outcome, str) or outcome.isascii()


@given(st.sampled_from(list(Opcode)), st.lists(st.sampled_from([b"\0", b"\xff", b"octet", b"tsize", b"8", b"\xc3"])))
def test_only_bad_packet_escapes_for_almost_packets(opcode, parts):
    outcome = parse_or_reason(parse_untrusted, opcode.to_bytes(2, "big") + b"".join(parts))
    if isinstance(outcome, Request):
        assert outcome.filename
        assert outcome.mode == "octet"
    if isinstance(outcome, Request | Oack):
        assert all(name for name, _ in outcome.options)


@pytest.mark.parametrize(("datagram", "reason"), MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("opcode", [b"\0\1", b"\0\2"], ids=["RRQ", "WRQ"])
def test_malformed_request_is_a_bad_packet(opcode, datagram, reason):
    with pytest.raises(BadPacket) as caught:
        parse_request_untrusted(opcode + datagram[2:])
    assert caught.value.reason == reason


@pytest.mark.parametrize("opcode", [b"", b"\0", b"\0\0", b"\0\3", b"\0\4", b"\0\5", b"\0\6", b"\0\7", b"\1\0", b"\1\1"])
def test_other_opcodes_are_no_request(opcode):
    with pytest.raises(BadPacket, match="not an RRQ or WRQ"):
        parse_request_untrusted(opcode + b"file\0octet\0")


@pytest.mark.parametrize("mode", ["octet", "OCTET", "Octet", "netascii", "NetASCII"])
def test_mode_is_compared_without_case(mode):
    assert parse_request_untrusted(f"\0\1f\0{mode}\0".encode()).mode == mode.lower()


def test_request_of_512_bytes_is_built_and_read():
    datagram = build_request(Opcode.RRQ, "f" * 503)
    assert len(datagram) == MAX_REQUEST_BYTES
    assert parse_request_untrusted(datagram).filename == "f" * 503


def test_longest_request_is_the_callers_to_choose():
    datagram = b"\0\1" + b"f" * 1000 + b"\0octet\0"
    assert len(parse_request_untrusted(datagram, max_request_bytes=len(datagram)).filename) == 1000
    with pytest.raises(BadPacket, match="request too long"):
        parse_request_untrusted(datagram, max_request_bytes=len(datagram) - 1)


@pytest.mark.parametrize(
    "name", [b"caf\xe9.cfg", b"fi\xfele", b"\xfffile", b"boot\xff\xff", b"\xff", b"\xed\xa0\x80", b"b\xc3\xb6ot\xff"]
)
def test_bytes_that_are_no_utf8_pass(name):
    request = parse_request_untrusted(b"\0\1" + name + b"\0octet\0blksize\x001456\0x\xe9\0\xfe\0")
    assert os.fsencode(request.filename) == name
    assert [os.fsencode(text) for pair in request.options for text in pair] == [b"blksize", b"1456", b"x\xe9", b"\xfe"]


def test_filename_keeps_the_letter_whose_code_point_is_ff():
    assert parse_request_untrusted("\0\1ÿ\0octet\0".encode()).filename == "ÿ"


def test_filename_keeps_line_breaks_backslashes_and_blanks():
    assert parse_request_untrusted(b"\0\1a\r\nb\\c d\0octet\0").filename == "a\r\nb\\c d"


@pytest.mark.parametrize("options", [(), (("tsize", "0"),), (("tsize", "0"), ("blksize", "8"))])
@pytest.mark.parametrize("padding", [1, 2, 3, 4, 5, 400])
def test_trailing_nuls_are_padding(options, padding):
    datagram = build_request(Opcode.RRQ, "f", "octet", options)
    assert parse_request_untrusted(datagram + bytes(padding)).options == options
    oack = build_oack(options)
    assert parse_untrusted(oack + bytes(padding)) == Oack(options)


def test_empty_option_value_is_kept():
    assert parse_request_untrusted(RRQ + b"tsize\0\0").options == (("tsize", ""),)


def test_options_keep_spelling_order_and_repetition():
    options = (("BlkSize", "1024"), ("x-unknown", "?"), ("blksize", "8"))
    assert parse_request_untrusted(build_request(Opcode.RRQ, "f", "octet", options)).options == options


def test_ack_with_trailing_bytes_is_read():
    assert parse_untrusted(b"\0\4\0\7" + bytes(512)) == Ack(7)


@pytest.mark.parametrize(
    ("tail", "text"),
    [(b"", ""), (b"gone", "gone"), (b"gone\0junk", "gone"), (b"g\xffne\0", "g\N{REPLACEMENT CHARACTER}ne")],
)
def test_error_is_believed_whatever_its_text(tail, text):
    assert parse_untrusted(b"\0\5\0\1" + tail) == Error(1, text)


@pytest.mark.parametrize("opcode", [b"\0\3", b"\0\4", b"\0\5"])
@pytest.mark.parametrize("rest", [b"", b"\0"])
def test_packet_shorter_than_its_header_is_bad(opcode, rest):
    with pytest.raises(BadPacket, match="shorter than its header"):
        parse_untrusted(opcode + rest)


@pytest.mark.parametrize(
    "parse", [packets.parse_data_untrusted, packets.parse_ack_untrusted, packets.parse_error_untrusted]
)
def test_packet_of_another_opcode_is_bad(parse):
    with pytest.raises(BadPacket, match="wrong opcode"):
        parse(b"\0\6\0\0")


@pytest.mark.parametrize("datagram", [b"", b"\0", b"\0\0", b"\0\7", b"\0\xff", b"\1\0", b"\xff\xff"])
def test_unknown_opcode_is_bad(datagram):
    with pytest.raises(BadPacket, match="unknown opcode"):
        parse_untrusted(datagram)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"\0\5\0\0oops\0", "not an OACK"),
        (b"\0\6tsize\0\xff\0", "not UTF-8"),
        (b"\0\6tsize", "unterminated string"),
        (b"\0\6tsize\0", "option without a value"),
        (b"\0\6\x008\0", "empty option name"),
    ],
)
def test_malformed_oack_is_bad(datagram, reason):
    with pytest.raises(BadPacket) as caught:
        packets.parse_oack_untrusted(datagram)
    assert caught.value.reason == reason


@pytest.mark.parametrize("opcode", [*range(3), *range(7, 256), 256, 257, 1280, 65535])
def test_malformed_request_and_unknown_opcode_are_answered_with_error_4(opcode):
    answer = refuse_malformed_untrusted(opcode.to_bytes(2, "big") + b"some junk at the end", "no mode")
    assert parse_untrusted(answer) == Error(ErrorCode.ILLEGAL_OPERATION, "no mode")


@pytest.mark.parametrize("opcode", [Opcode.DATA, Opcode.ACK, Opcode.ERROR, Opcode.OACK])
@pytest.mark.parametrize("rest", [b"", b"\0", b"\0\0", b"\0\0text\0"])
def test_data_ack_error_and_oack_on_the_request_port_are_met_with_silence(opcode, rest):
    assert refuse_malformed_untrusted(opcode.to_bytes(2, "big") + rest, "not an RRQ or WRQ") is None


@pytest.mark.parametrize("datagram", [b"", b"\0", b"\1", b"\xff"])
def test_datagram_without_a_whole_opcode_is_met_with_silence(datagram):
    assert refuse_malformed_untrusted(datagram, "not an RRQ or WRQ") is None


@pytest.mark.parametrize(
    ("length", "text"), [(2, ""), (4, ""), (5, ""), (6, "n"), (11, "no mod"), (12, "no mode"), (99, "no mode")]
)
def test_answer_to_a_bad_datagram_costs_no_more_than_it(length, text):
    answer = refuse_malformed_untrusted(bytes(length), "no mode")
    assert parse_untrusted(answer) == Error(4, text)
    assert len(answer) <= max(length, 5)


@given(st.binary(max_size=600))
@example(b"\0\1")
@example(b"\0\1f\0mail\0")
def test_answer_to_any_bad_datagram_starts_no_exchange(datagram):
    try:
        parse_request_untrusted(datagram)
    except BadPacket as bad:
        answer = refuse_malformed_untrusted(datagram, bad.reason)
        if answer is not None:
            assert len(answer) <= max(len(datagram), 5)
            assert refuse_malformed_untrusted(answer, "not an RRQ or WRQ") is None


def test_error_text_never_makes_building_fail():
    assert build_error(0, "a\0b") == b"\0\5\0\0a b\0"
    assert build_error(0, "schön \ud800") == b"\0\5\0\0sch?n ?\0"


@pytest.mark.parametrize("build", [build_ack, build_error, lambda number: build_data(number, b"")])
@pytest.mark.parametrize("number", [-1, 65536])
def test_building_refuses_what_does_not_fit_16_bits(build, number):
    with pytest.raises(ValueError, match="not a 16-bit number"):
        build(number)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((Opcode.DATA, "f"), "not a request opcode"),
        ((Opcode.RRQ, ""), "empty filename"),
        ((Opcode.RRQ, "a\0b"), "cannot hold a NUL"),
        ((Opcode.RRQ, "\ud800"), "surrogates not allowed"),
        ((Opcode.RRQ, "f", "mail"), "not a transfer mode"),
        ((Opcode.RRQ, "f", "OCTET"), "not a transfer mode"),
        ((Opcode.RRQ, "f", "octet", [("", "8")]), "empty option name"),
        ((Opcode.RRQ, "f", "octet", [("tsize", "\0")]), "cannot hold a NUL"),
        ((Opcode.RRQ, "f" * 504), "request of 513 bytes exceeds 512"),
    ],
)
def test_building_refuses_a_request_that_would_not_parse_back(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        build_request(*arguments)


@pytest.mark.parametrize("options", [[("", "8")], [("a\0b", "8")], [("tsize", "\0")]])
def test_building_refuses_an_oack_that_would_not_parse_back(options):
    with pytest.raises(ValueError, match=r"empty option name|cannot hold a NUL"):
        build_oack(options)
