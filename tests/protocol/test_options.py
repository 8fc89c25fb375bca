"""Checklist of option negotiation: RFC 2347, 2348, 2349 and 7440, from the server's and from the client's side."""

from contextlib import suppress
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.errors import BadPacket, ConfigError
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.oack import accept_oack_untrusted
from snow_owl_tftp.protocol.options import (
    Negotiated,
    OptionLimits,
    _asks_for_fragments,
    _grant,
    asks_for_fragments,
    negotiate,
)
from snow_owl_tftp.protocol.packets import Oack, Request, build_error, build_oack, parse_untrusted
from snow_owl_tftp.protocol.seq import Rollover

NOTHING = Negotiated(512, 1, None, None, (), b"")
EXTENSIONS = ["blksize2", "utimeout", "rollover", "cookie"]  # of tftpd-hpa
NO_NUMBERS = ["abc", "", "-1", "1.5", " 512", "512 ", "+512", "1_0", "0x200", "1e3", "٥١٢", "５１２", "²"]
SOME_VALUES = st.one_of(
    st.sampled_from(NO_NUMBERS), st.integers(0, 70_000).map(str), st.integers(0, 10**22).map(str), st.text(max_size=5)
).filter(lambda value: "\0" not in value)
SOME_NAMES = st.sampled_from(
    ["blksize", "BLKSIZE", "timeout", "tsize", "windowsize", "WindowSize", "multicast", "x", *EXTENSIONS]
)
SOME_OPTIONS = st.lists(st.tuples(SOME_NAMES, SOME_VALUES), max_size=6).map(tuple)


def ask(*options, kind=Opcode.RRQ, size_bytes=None, **limits):
    return negotiate(Request(kind, "f", "octet", options), size_bytes=size_bytes, limits=OptionLimits(**limits))


def test_request_without_options_gets_no_oack():
    assert ask() == NOTHING


@pytest.mark.parametrize(
    "name", ["multicast", "x-unknown", "blksize3", "blk size", "bl\N{KELVIN SIGN}size", "ＢLKSIZE"]
)
def test_unknown_option_is_ignored_and_alone_gets_no_oack(name):
    assert ask((name, "1024")) == NOTHING


def test_oack_holds_only_what_was_asked_and_accepted_in_the_order_asked():
    granted = ask(("tsize", "0"), ("x", "1"), ("timeout", "0"), ("windowsize", "4"), ("blksize", "1024"), size_bytes=7)
    assert granted.accepted == (("tsize", "7"), ("windowsize", "4"), ("blksize", "1024"))
    assert granted.oack == b"\0\6tsize\x007\0windowsize\x004\0blksize\x001024\0"


@pytest.mark.parametrize("name", ["blksize", "BLKSIZE", "BlkSize"])
def test_option_name_has_no_case_and_is_echoed_as_spelled(name):
    granted = ask((name, "1024"))
    assert granted.blksize_bytes == 1024
    assert granted.accepted == ((name, "1024"),)


def test_of_an_option_given_twice_the_first_counts():
    granted = ask(("blksize", "1024"), ("tsize", "0"), ("BLKSIZE", "8"), size_bytes=1)
    assert granted.blksize_bytes == 1024
    assert granted.accepted == (("blksize", "1024"), ("tsize", "1"))


def test_of_an_option_given_twice_the_first_counts_even_if_ignored():
    assert ask(("blksize", "abc"), ("blksize", "1024")) == NOTHING


@pytest.mark.parametrize("name", ["blksize", "timeout", "tsize", "windowsize"])
@pytest.mark.parametrize("kind", [Opcode.RRQ, Opcode.WRQ])
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_value_that_is_no_number_is_ignored_and_kills_nothing(name, kind, value):
    assert ask((name, value), kind=kind, size_bytes=100) == NOTHING


@pytest.mark.parametrize("asked", [8, 9, 511, 512, 513, 1428, 1468, 65463, 65464])
def test_blksize_in_range_is_granted(asked):
    granted = ask(("blksize", str(asked)))
    assert granted.blksize_bytes == asked
    assert granted.oack == b"\0\6blksize\0%d\0" % asked


def test_leading_zeros_do_not_count():
    assert ask(("blksize", "0" * 30 + "1024")).blksize_bytes == 1024
    assert ask(("blksize", "0" * 30 + "70000")).accepted == (("blksize", "65464"),)


@pytest.mark.parametrize("asked", ["0", "1", "7", "007"])
def test_blksize_below_8_is_ignored(asked):
    assert ask(("blksize", asked)) == NOTHING


@pytest.mark.parametrize("asked", ["65465", "70000", "99999999999", "9" * 20, "9" * 400, "9" * 5000])
def test_blksize_is_lowered_to_the_largest_of_the_rfc(asked):
    granted = ask(("blksize", asked))
    assert granted.blksize_bytes == 65464
    assert granted.accepted == (("blksize", "65464"),)


@pytest.mark.parametrize(("asked", "granted"), [(1427, 1427), (1428, 1428), (1429, 1428), (65464, 1428), (70000, 1428)])
def test_blksize_is_lowered_to_the_largest_of_the_server(asked, granted):
    assert ask(("blksize", str(asked)), max_blksize_bytes=1428).blksize_bytes == granted


def test_blksize_cap_below_512_leaves_a_client_alone_that_did_not_ask():
    assert ask(("timeout", "1"), max_blksize_bytes=8).blksize_bytes == 512


@pytest.mark.parametrize("asked", ["1", "2", "254", "255", "05"])
@pytest.mark.parametrize("kind", [Opcode.RRQ, Opcode.WRQ])
def test_timeout_in_range_is_echoed_equal(asked, kind):
    granted = ask(("timeout", asked), kind=kind)
    assert granted.timeout_s == int(asked)
    assert granted.accepted == (("timeout", asked),)


@pytest.mark.parametrize("asked", ["0", "256", "99999999999", "9" * 20])
def test_timeout_out_of_range_is_ignored(asked):
    assert ask(("timeout", asked)) == NOTHING


@pytest.mark.parametrize("size_bytes", [1, 511, 512, 2**32, 5 * 2**30])
@pytest.mark.parametrize("asked", ["0", "1", "123456789"])
def test_tsize_of_an_rrq_is_answered_with_the_exact_size(size_bytes, asked):
    granted = ask(("tsize", asked), size_bytes=size_bytes)
    assert granted.tsize == size_bytes
    assert granted.accepted == (("tsize", str(size_bytes)),)


def test_size_of_an_empty_file_is_left_out_for_curl():
    assert ask(("tsize", "0"), size_bytes=0) == NOTHING
    assert ask(("tsize", "0"), ("blksize", "512"), size_bytes=0).accepted == (("blksize", "512"),)
    assert ask(("tsize", "0"), kind=Opcode.WRQ).accepted == (("tsize", "0"),)


def test_tsize_of_an_rrq_is_ignored_if_nobody_knows_the_size():
    assert ask(("tsize", "0"), size_bytes=None) == NOTHING


@pytest.mark.parametrize("asked", ["0", "1", "5368709120", str(2**63 - 1)])
@pytest.mark.parametrize("size_bytes", [None, 7])
def test_tsize_of_a_wrq_is_echoed_and_kept(asked, size_bytes):
    granted = ask(("tsize", asked), kind=Opcode.WRQ, size_bytes=size_bytes)
    assert granted.tsize == int(asked)
    assert granted.accepted == (("tsize", asked),)


@pytest.mark.parametrize("asked", [str(2**63), str(10**19), str(10**20), str(10**21)])
def test_tsize_of_a_wrq_beyond_every_file_is_ignored(asked):
    assert ask(("tsize", asked), kind=Opcode.WRQ) == NOTHING


@pytest.mark.parametrize("asked", [1, 2, 16, 64, 65534, 65535])
def test_windowsize_in_range_is_granted(asked):
    granted = ask(("windowsize", str(asked)), max_window_bytes=2**40)
    assert granted.windowsize_blocks == asked
    assert granted.oack == b"\0\6windowsize\0%d\0" % asked


@pytest.mark.parametrize(
    ("blksize", "mtu_bytes", "granted"),
    [
        ("8192", 1500, 11),
        ("8192", 9000, 32),
        ("1468", 1500, 32),
        ("1469", 1500, 32),
        ("2920", 1500, 32),
        ("65464", 1500, 1),
        ("65464", 9000, 1),
        ("8192", None, 32),
    ],
)
def test_a_window_of_blocks_above_the_mtu_is_no_longer_than_a_usual_socket_holds(blksize, mtu_bytes, granted):
    request = Request(Opcode.RRQ, "f", "octet", (("windowsize", "32"), ("blksize", blksize)))
    negotiated = negotiate(request, size_bytes=9, limits=OptionLimits(), mtu_bytes=mtu_bytes)
    assert negotiated.windowsize_blocks == granted
    assert negotiated.accepted == (("windowsize", str(granted)), ("blksize", blksize))


@pytest.mark.parametrize(
    ("options", "matters"),
    [
        ({"blksize": "8192", "windowsize": "2"}, True),
        ({"blksize2": "2048", "windowsize": "2"}, True),
        ({"blksize": "1469", "windowsize": "2"}, True),
        ({"blksize": "1468", "windowsize": "64"}, False),
        ({"blksize": "8192", "windowsize": "1"}, False),
        ({"blksize": "8192"}, False),
        ({"windowsize": "64"}, False),
        ({"blksize": "x", "windowsize": "64"}, False),
    ],
)
def test_the_mtu_matters_to_windows_of_large_blocks_alone(options, matters):
    assert asks_for_fragments(Request(Opcode.RRQ, "f", "octet", tuple(options.items()))) is matters


def test_windowsize_of_0_is_ignored():
    assert ask(("windowsize", "0")) == NOTHING


@pytest.mark.parametrize("asked", ["65536", "99999999999", "9" * 20])
def test_windowsize_is_lowered_to_the_largest_of_the_rfc(asked):
    assert ask(("windowsize", asked), max_window_bytes=2**40).accepted == (("windowsize", "65535"),)


@pytest.mark.parametrize(("asked", "granted"), [(31, 31), (32, 32), (33, 32), (65535, 32)])
def test_windowsize_is_lowered_to_the_largest_of_the_server(asked, granted):
    assert ask(("windowsize", str(asked)), max_windowsize_blocks=32).windowsize_blocks == granted


@pytest.mark.parametrize(
    ("blksize", "window_max", "granted"),
    [(1024, 8192, 8), (1024, 8191, 7), (1024, 8193, 8), (65464, 65464, 1), (65464, 1, 1), (8, 2**21, 65535)],
)
def test_window_fits_its_cap_in_bytes_but_is_never_below_one_block(blksize, window_max, granted):
    options = [("blksize", str(blksize)), ("windowsize", "65535")]
    for order in permutations(options):
        negotiated = ask(*order, max_window_bytes=window_max)
        assert negotiated.windowsize_blocks == granted
        assert dict(negotiated.accepted)["windowsize"] == str(granted)


def test_window_cap_counts_blocks_of_512_bytes_if_blksize_is_not_granted():
    for options in ([("windowsize", "99")], [("windowsize", "99"), ("blksize", "7")]):
        assert ask(*options, max_window_bytes=5120).windowsize_blocks == 10
    assert (
        ask(("blksize", "8"), ("windowsize", "99"), max_window_bytes=5120, allow_blksize=False).windowsize_blocks == 10
    )


def test_window_of_65535_largest_blocks_holds_no_gigabytes():
    granted = ask(("blksize", "65464"), ("windowsize", "65535"))
    assert granted.blksize_bytes * granted.windowsize_blocks <= 2 * 1024 * 1024


@pytest.mark.parametrize("name", ["blksize", "timeout", "tsize", "windowsize"])
def test_option_switched_off_is_unknown(name):
    asked = [("blksize", "1024"), ("timeout", "2"), ("tsize", "0"), ("windowsize", "4")]
    everything = ask(*asked, size_bytes=9)
    assert [name for name, _ in everything.accepted] == [name for name, _ in asked]
    without = ask(*asked, size_bytes=9, **{f"allow_{name}": False})
    assert without.accepted == tuple(pair for pair in everything.accepted if pair[0] != name)
    assert ask((name, "9"), size_bytes=9, **{f"allow_{name}": False}) == NOTHING


@pytest.mark.parametrize("name", EXTENSIONS)
@pytest.mark.parametrize("spelled", [str, str.upper])
def test_extensions_of_tftpd_hpa_can_be_switched_off(name, spelled):
    asked = (spelled(name), {"blksize2": "1024", "utimeout": "500000", "rollover": "1"}.get(name, "as sent"))
    assert ask(asked).accepted == (asked,)
    assert ask(asked, allow_extensions=False) == NOTHING


@pytest.mark.parametrize(
    ("asked", "granted"),
    [("7", None), ("8", 8), ("9", 8), ("1024", 1024), ("1428", 1024), ("65464", 32768), ("99999", 32768), ("x", None)],
)
def test_blksize2_is_the_power_of_two_at_or_below(asked, granted):
    negotiated = ask(("blksize2", asked))
    assert negotiated.blksize_bytes == granted or (granted is None and negotiated == NOTHING)
    assert granted is None or negotiated.accepted == (("blksize2", str(granted)),)


def test_blksize2_keeps_below_the_cap_and_gives_way_to_blksize():
    assert ask(("blksize2", "4096"), max_blksize_bytes=1428).blksize_bytes == 1024
    assert ask(("blksize2", "4096"), allow_blksize=False) == NOTHING
    for order in permutations([("blksize2", "1024"), ("blksize", "1428")]):
        assert ask(*order).accepted == (("blksize", "1428"),)
    assert ask(("blksize", "0"), ("blksize2", "1024")).blksize_bytes == 1024


def test_window_fits_its_cap_with_blocks_of_blksize2():
    assert ask(("windowsize", "99"), ("blksize2", "1024"), max_window_bytes=8192).windowsize_blocks == 8


@pytest.mark.parametrize("asked", ["10000", "10001", "1500000", "255000000"])
def test_utimeout_in_range_is_echoed_and_counts_before_timeout(asked):
    assert ask(("utimeout", asked)).timeout_ns == int(asked) * 1000
    negotiated = ask(("timeout", "2"), ("utimeout", asked))
    assert negotiated.accepted == (("timeout", "2"), ("utimeout", asked))
    assert negotiated.timeout_ns == int(asked) * 1000


@pytest.mark.parametrize("asked", ["0", "9999", "255000001", "9" * 20, "1.5", ""])
def test_utimeout_out_of_range_is_ignored(asked):
    assert ask(("utimeout", asked)) == NOTHING


def test_timeout_is_in_seconds_and_its_absence_leaves_the_measured_one():
    assert ask(("timeout", "3")).timeout_ns == 3_000_000_000
    assert ask(("blksize", "512")).timeout_ns == 0


@pytest.mark.parametrize(("asked", "rollover"), [("0", Rollover.TO_0), ("1", Rollover.TO_1)])
def test_rollover_is_granted_and_echoed(asked, rollover):
    negotiated = ask(("rollover", asked))
    assert negotiated.rollover is rollover
    assert negotiated.accepted == (("rollover", asked),)


@pytest.mark.parametrize("asked", ["2", "65535", "x", ""])
def test_rollover_to_another_number_is_ignored(asked):
    assert ask(("rollover", asked)) == NOTHING


def test_window_with_rollover_to_1_leaves_one_number_for_the_block_before_it():
    asked = [("windowsize", "65535"), ("blksize", "8")]
    assert ask(*asked, max_window_bytes=2**40).windowsize_blocks == 65535
    assert ask(*asked, ("rollover", "0"), max_window_bytes=2**40).windowsize_blocks == 65535
    assert ask(*asked, ("rollover", "1"), max_window_bytes=2**40).windowsize_blocks == 65534


@pytest.mark.parametrize("value", ["1", "-", "a long one, with spaces", "0" * 100])
def test_cookie_is_echoed_as_sent(value):
    assert ask(("Cookie", value)).accepted == (("Cookie", value),)


def test_cookie_without_a_value_is_ignored():
    assert ask(("cookie", "")) == NOTHING


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("max_blksize_bytes", [7, 65465], [8, 65464]),
        ("max_windowsize_blocks", [0, 65536], [1, 65535]),
        ("max_window_bytes", [0, -1], [1, 2**40]),
    ],
)
def test_limits_out_of_range_are_refused(name, bad, good):
    for number in bad:
        with pytest.raises(ConfigError, match=f"{name}.*: {number}"):
            OptionLimits(**{name: number})
    for number in good:
        assert getattr(OptionLimits(**{name: number}), name) == number


@given(SOME_OPTIONS, st.sampled_from([Opcode.RRQ, Opcode.WRQ]), st.none() | st.integers(0, 2**40))
def test_whatever_is_asked_the_answer_keeps_the_rfcs(options, kind, size_bytes):
    granted = ask(*options, kind=kind, size_bytes=size_bytes)
    asked_names = [name for name, _ in options]
    answered_names = [name for name, _ in granted.accepted]
    assert len({name.lower() for name in answered_names}) == len(answered_names)
    assert answered_names == [name for name in dict.fromkeys(asked_names) if name in answered_names]
    assert 8 <= granted.blksize_bytes <= 65464
    assert 1 <= granted.windowsize_blocks <= 65535
    assert granted.timeout_s is None or 1 <= granted.timeout_s <= 255
    if granted.accepted:
        assert parse_untrusted(granted.oack) == Oack(granted.accepted)
    else:
        assert granted == NOTHING


@given(SOME_OPTIONS, st.sampled_from([Opcode.RRQ, Opcode.WRQ]))
def test_client_accepts_what_this_server_grants(options, kind):
    granted = ask(*options, kind=kind, size_bytes=12345)
    if granted.accepted:
        assert accept_oack_untrusted(options, granted.oack) == granted


ASKED = (("blksize", "1428"), ("timeout", "3"), ("tsize", "0"), ("windowsize", "16"), ("x-own", "?"))


def test_client_takes_what_the_oack_says():
    oack = build_oack([("WINDOWSIZE", "8"), ("tsize", "5368709120"), ("blksize", "1024"), ("timeout", "3")])
    accepted = accept_oack_untrusted(ASKED, oack)
    assert accepted == Negotiated(1024, 8, 3, 5368709120, parse_untrusted(oack).options, oack)


def test_client_takes_the_default_for_what_the_oack_leaves_out():
    assert accept_oack_untrusted(ASKED, build_oack([])) == Negotiated(oack=b"\0\6")


def test_client_accepts_an_option_of_its_own_with_any_value():
    assert accept_oack_untrusted(ASKED, build_oack([("X-Own", "yes")])).accepted == (("X-Own", "yes"),)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([("multicast", "224.0.0.1")], "never asked for"),
        ([("blksize", "1024"), ("BLKSIZE", "8")], "in two ways"),
        ([("blksize", "8"), ("tsize", "1"), ("blksize", "1024")], "in two ways"),
        ([("blksize", "1429")], "blksize"),
        ([("blksize", "7")], "blksize"),
        ([("blksize", "9" * 5000)], "blksize"),
        ([("windowsize", "17")], "windowsize"),
        ([("windowsize", "0")], "windowsize"),
        ([("timeout", "2")], "timeout"),
        ([("timeout", "4")], "timeout"),
        ([("tsize", str(2**63))], "tsize"),
        *(
            ([(name, value)], name)
            for name in ("blksize", "timeout", "tsize", "windowsize")
            for value in ("", "-1", "3.0", " 3", "abc")
        ),
    ],
)
def test_client_refuses_an_oack_that_breaks_the_rfcs(answer, reason):
    with pytest.raises(BadPacket, match=reason):
        accept_oack_untrusted(ASKED, build_oack(answer))


def test_client_that_asked_for_no_number_accepts_no_number():
    with pytest.raises(BadPacket, match="blksize"):
        accept_oack_untrusted([("blksize", "abc")], build_oack([("blksize", "512")]))


@pytest.mark.parametrize("datagram", [b"", b"\0\6blksize", b"\0\4\0\0", build_error(8, "no")])
def test_client_refuses_what_is_no_oack(datagram):
    with pytest.raises(BadPacket):
        accept_oack_untrusted(ASKED, datagram)


@given(st.binary(max_size=80))
def test_only_bad_packet_escapes_from_an_arbitrary_oack(tail):
    with suppress(BadPacket):
        accepted = accept_oack_untrusted(ASKED, b"\0\6" + tail)
        assert accepted.blksize_bytes <= 1428
        assert accepted.windowsize_blocks <= 16


@given(SOME_OPTIONS)
def test_client_never_gets_more_than_it_asked_for(answer):
    try:
        accepted = accept_oack_untrusted(ASKED, build_oack(answer))
    except BadPacket:
        return
    assert 8 <= accepted.blksize_bytes <= 1428
    assert 1 <= accepted.windowsize_blocks <= 16
    assert accepted.timeout_s in (None, 3)


# ---- what is remembered


@given(SOME_OPTIONS, st.sampled_from([Opcode.RRQ, Opcode.WRQ]), st.sampled_from([None, 0, 1, 512, 70_000]))
def test_a_remembered_answer_depends_on_all_that_it_was_made_of(options, kind, size_bytes):
    """Every other question is put first, so that its answer is there to be taken by mistake."""
    narrow = {"max_blksize_bytes": 1000, "max_windowsize_blocks": 3}
    for other in ({}, narrow):
        for other_kind in (Opcode.RRQ, Opcode.WRQ):
            for other_size in (None, 0, 1, 512, 70_000):
                ask(*options, kind=other_kind, size_bytes=other_size, **other)
    padding = tuple((f"x{number}", "1") for number in range(16))  # more than is remembered
    for limits in ({}, narrow):
        asked = ask(*options, kind=kind, size_bytes=size_bytes, **limits)
        assert asked == ask(*options, *padding, kind=kind, size_bytes=size_bytes, **limits)


def test_how_much_is_remembered_is_bounded():
    for number in range(5000):
        ask(("x", str(number)), ("blksize", "1024"))
        asks_for_fragments(Request(Opcode.RRQ, "f", "octet", (("x", str(number)),)))
    before = [remembered.cache_info() for remembered in (_grant, _asks_for_fragments)]
    assert all(info.currsize <= info.maxsize == 1024 for info in before)
    many = tuple((f"y{number}", "1") for number in range(17))
    ask(*many)
    asks_for_fragments(Request(Opcode.RRQ, "f", "octet", many))
    assert [remembered.cache_info() for remembered in (_grant, _asks_for_fragments)] == before
