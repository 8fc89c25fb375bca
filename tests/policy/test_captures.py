"""Globs with variables: what they match, what they capture, and what no name can do to them."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.captures import NamePatterns


def captured(pattern: str, path: str) -> dict[str, str] | None:
    found = NamePatterns([pattern]).find(path.encode("utf-8", "surrogateescape"))
    return None if found is None else dict(found.variables)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("pxelinux.cfg/01-{mac_dashes}", "pxelinux.cfg/01-52-54-00-aB-cd-ef", {"mac_dashes": "52-54-00-aB-cd-ef"}),
        ("pxelinux.cfg/01-{mac_dashes}", "pxelinux.cfg/01-52-54-00-ab-cd", None),
        ("pxelinux.cfg/01-{mac_dashes}", "pxelinux.cfg/01-52-54-00-ab-cd-ef-00", None),
        ("pxelinux.cfg/{address_hex}", "pxelinux.cfg/0A010203", {"address_hex": "0A010203"}),
        ("pxelinux.cfg/{address_hex}", "pxelinux.cfg/0A0102", None),
        ("SEP{mac_plain}.cnf.xml", "SEP00112233AABB.cnf.xml", {"mac_plain": "00112233AABB"}),
        ("{mac}/boot", "52:54:00:00:00:01/boot", {"mac": "52:54:00:00:00:01"}),
        (
            "{uuid}.ipxe",
            "564d3c5e-9f3b-4a7d-8a0f-0123456789ab.ipxe",
            {"uuid": "564d3c5e-9f3b-4a7d-8a0f-0123456789ab"},
        ),
        ("{address}.cfg", "10.1.2.3.cfg", {"address": "10.1.2.3"}),
        ("{address}.cfg", "fd00::1.cfg", {"address": "fd00::1"}),
        ("{address}.cfg", "router.cfg", None),
        ("{serial}/config", "FOC1234X0YZ/config", {"serial": "FOC1234X0YZ"}),
        ("{serial}/config", "a/b/config", None),
        ("{serial}/config", "/config", None),
        ("{name}-boot.log", "x-boot.log-boot.log", {"name": "x-boot.log"}),
        ("{a}-{b}.cfg", "x-y-z.cfg", {"a": "x", "b": "y-z"}),
        ("**/{name}.cfg", "a/b/c.cfg", {"name": "c"}),
        ("**/{name}.cfg", "c.cfg", {"name": "c"}),
        ("cfg/*/{name}", "cfg/x/y", {"name": "y"}),
        ("cfg/[ab]?{n}", "cfg/axy", {"n": "y"}),
        ("fixed", "fixed", {}),
        ("{name}", "caf\udce9", {"name": "caf\ufffd"}),
        ("{name}", "two\nlines", None),
    ],
)
def test_pattern_captures(pattern: str, path: str, expected: dict[str, str] | None) -> None:
    assert captured(pattern, path) == expected


def test_first_of_several_is_meant() -> None:
    patterns = NamePatterns(["a/{x}.cfg", "a/{y}", "**"])
    assert patterns.variables == [("x",), ("y",), ()]
    assert [patterns.find(path) for path in (b"a/1.cfg", b"a/1", b"b")] == [
        (0, {"x": "1"}),
        (1, {"y": "1"}),
        (2, {}),
    ]


@pytest.mark.parametrize("path", ["pxe/..", "a/../pxe/x", "../pxe/x", "pxe/../x"])
def test_path_that_leads_elsewhere_matches_nothing(path: str) -> None:
    assert NamePatterns(["**", "pxe/{name}", "{a}/{b}/{c}"]).find(path.encode()) is None


@pytest.mark.parametrize(
    "value", ["..", "../../etc", "52-54-00-12-34-5/", "52-54-00-12-34-..", "%2e%2e", "\uff0e\uff0e"]
)
def test_mac_is_a_mac_whatever_is_sent(value: str) -> None:
    assert captured("pxelinux.cfg/01-{mac_dashes}", f"pxelinux.cfg/01-{value}") is None


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("{mac}/{mac}", "stands there twice"),
        ("{Mac}", "no variable"),
        ("{}", "no variable"),
        ("{a b}", "no variable"),
        ("{machine}", "means something else"),
        ("a//{x}", "matches no path"),
        ("../{x}", "matches no path"),
        ("[a{x}", "is no pattern"),
        ("", "matches no path"),
    ],
)
def test_pattern_that_is_none_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        NamePatterns([pattern], reserved=["machine"])


def test_no_patterns_match_nothing() -> None:
    assert NamePatterns([]).find(b"x") is None


def test_fifty_patterns_are_searched_quickly() -> None:
    patterns = NamePatterns([f"dir{number}/{{name}}-{{mac_dashes}}.cfg" for number in range(50)])
    paths = [b"boot/x86_64/vmlinuz-%d" % number for number in range(2000)]  # more than are remembered
    best = min(_timed(patterns, paths) for _ in range(5))
    assert best / len(paths) < 50e-6  # measured: 5 µs; one expression after the other takes ten times that


def _timed(patterns: NamePatterns, paths: list[bytes]) -> float:
    began = time.process_time()
    for path in paths:
        patterns.find(path)
    return time.process_time() - began


@pytest.mark.parametrize("pattern", ["{a}-{b}-{c}-{d}-{e}.x", "**/{a}-*-{b}/**/{c}-*-x", "{address}{b}{address_hex}x"])
def test_no_name_makes_the_search_long(pattern: str) -> None:
    patterns = NamePatterns([pattern])
    for filler in ("-", "a-", "1", "a", "1.", ":", "-/", "/-"):
        began = time.process_time()
        patterns.find((filler * 500)[:500].encode())
        assert time.process_time() - began < 0.2


@settings(max_examples=300)
@given(
    st.text(st.sampled_from("ab-./\\:0\n\udcff{}"), max_size=30),
    st.sampled_from(["{x}", "a/{x}.{y}", "**/{x}-*", "{mac}*"]),
)
def test_what_is_captured_never_changes_a_path(path: str, pattern: str) -> None:
    values = captured(pattern, path) or {}
    for value in values.values():
        assert value
        assert not set(value) & set("/\n\0")
