"""RFC 3617 URLs."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.client.url import TftpUrl, parse_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tftp://h/a", TftpUrl("h", 69, "a")),
        ("tftp://h:6969/a/b", TftpUrl("h", 6969, "a/b")),
        ("tftp://h//abs", TftpUrl("h", 69, "/abs")),
        ("tftp://h/a;mode=netascii", TftpUrl("h", 69, "a", "netascii")),
        ("tftp://h/a;mode=OCTET", TftpUrl("h", 69, "a", "octet")),
        ("tftp://h/a%3Bb%20c", TftpUrl("h", 69, "a;b c")),
        ("tftp://h/a?b", TftpUrl("h", 69, "a?b")),
        ("tftp://h/a?", TftpUrl("h", 69, "a?")),
        ("TFTP://h/a", TftpUrl("h", 69, "a")),
        ("tftp://[fe80::1%2525x]/a", TftpUrl("fe80::1%25x", 69, "a")),
        ("tftp://a%2541/a", TftpUrl("a%41", 69, "a")),
        ("tftp://h/a#b", TftpUrl("h", 69, "a#b")),
        (r"tftp://h/a\b%5Cc", TftpUrl("h", 69, r"a\b\c")),
        ("tftp://h/%FFa%E4", TftpUrl("h", 69, "\udcffa\udce4")),
        ("tftp://h/\udcc3%A4", TftpUrl("h", 69, "ä")),
        ("tftp://h/100%", TftpUrl("h", 69, "100%")),
        ("tftp://10.0.0.1/a", TftpUrl("10.0.0.1", 69, "a")),
        ("tftp://[::1]:70/a", TftpUrl("::1", 70, "a")),
        ("tftp://[fe80::1%25eth0]/a", TftpUrl("fe80::1%eth0", 69, "a")),
    ],
)
def test_parts(text, expected):
    assert parse_url(text) == expected
    assert parse_url(str(expected)) == expected


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
_NAMES = _TEXT.filter(lambda text: ":" not in text)
_ZONES = st.builds("fe80::1%{}".format, _TEXT)


@given(st.builds(TftpUrl, _NAMES | _ZONES, st.integers(1, 65535), _TEXT, st.sampled_from([None, "octet", "netascii"])))
def test_what_is_written_is_read_again(url):
    assert parse_url(str(url)) == url


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_every_name_without_nul_can_be_written(name):
    url = TftpUrl("h", 69, os.fsdecode(name))
    assert os.fsencode(parse_url(str(url)).path) == name
    assert str(url).isascii()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("tftp://h/a", "a"),
        ("tftp://h/a/", "a/my%41;b"),
        ("tftp://h/", "my%41;b"),
        ("tftp://h/a/;mode=octet", "a/my%41;b"),
        ("tftp://h/a%2F", "a/my%41;b"),
    ],
)
def test_folder_takes_the_name_of_the_file(text, path):
    assert parse_url(text, file_name="my%41;b").path == path


def test_link_local_zone_may_be_bare():
    assert parse_url("tftp://[fe80::1%eth0]/a").host == "fe80::1%eth0"


@pytest.mark.parametrize(
    "text",
    [
        "http://h/a",
        "tftp:/h/a",
        "tftp://h",
        "tftp://h/",
        "tftp:///a",
        "tftp://h:0/a",
        "tftp://h:65536/a",
        "tftp://h:x/a",
        "tftp://u@h/a",
        "tftp://::1/a",
        "tftp://[::1/a",
        "tftp://h/a;mode=mail",
        "tftp://h/a;type=i",
        "tftp://h/a%00b",
    ],
)
def test_what_is_no_tftp_url_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own message
        parse_url(text)
