"""How names of requests are spelled before anything looks at them."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.content.names import (
    MAX_SPELLINGS,
    Names,
    climbs_above_root,
    in_lower_case,
    normalise_name,
    spellings_of,
)
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("file", b"file"),
        ("/file", b"file"),
        ("///file", b"file"),
        ("a/b/c", b"a/b/c"),
        ("a//b///c", b"a/b/c"),
        ("./a/./b/.", b"a/b"),
        ("a/b/", b"a/b"),
        ("", b"."),
        ("/", b"."),
        ("././", b"."),
        (".hidden", b".hidden"),
        ("a/...", b"a/..."),
        ("MixedCase.EFI", b"MixedCase.EFI"),
        ("with space", b"with space"),
        ("grüße", "grüße".encode()),
        ("\udcff", b"\xff"),
    ],
)
def test_name_becomes_a_tidy_path(name: str, path: bytes) -> None:
    assert spellings_of(name)[0] == path


@pytest.mark.parametrize(("name", "path"), [("\\boot\\x64\\boot.sdi", b"boot/x64/boot.sdi"), ("a\\..\\b", b"a/../b")])
def test_backslash_separates(name: str, path: bytes) -> None:
    assert spellings_of(name)[0] == path


@pytest.mark.parametrize(("name", "path"), [("../x", b"../x"), ("a/../b", b"a/../b"), ("/..", b"..")])
def test_dot_dot_is_left_to_who_opens(name: str, path: bytes) -> None:
    assert spellings_of(name)[0] == path


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b"netboot.xyz.efi\xff", b"netboot.xyz.efi"),
        (b"pxelinux.0\xff\xff\xff", b"pxelinux.0"),
        (b"pxelinux.0\xff\x06\x04gar/bage", b"pxelinux.0"),
        (b"pxelinux.0\r\n", b"pxelinux.0"),
        (b"pxelinux.0\x01\x1f\x7f ", b"pxelinux.0"),
        (b"pxelinux.0   ", b"pxelinux.0"),
        (b"pxelinux.0\n\xff", b"pxelinux.0"),
        (b"sub/caf\xe9.cfg\xff", b"sub/caf\xe9.cfg"),
    ],
)
def test_what_firmware_hangs_behind_a_name_is_cut_off_only_behind_the_name_as_sent(sent: bytes, meant: bytes) -> None:
    assert spellings_of(os.fsdecode(sent)) == (sent, meant)


@pytest.mark.parametrize(
    "name", [b"caf\xe9.cfg", b"a\nb", b"\x01a", b"a\xfeb", "ÿ\N{NO-BREAK SPACE}".encode(), b"a\xc3"]
)
def test_other_bytes_are_the_name(name: bytes) -> None:
    assert spellings_of(os.fsdecode(name)) == (name,)


@pytest.mark.parametrize("name", [b"\xff", b"\xff\xffx", b"\r\n", b" "])
def test_nothing_is_cut_off_that_leaves_no_name(name: bytes) -> None:
    assert spellings_of(os.fsdecode(name)) == (name,)


def test_nul_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        spellings_of("a\0b")
    assert caught.value.code == ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_name_of_what_is_made_holds_no_control_character(code: int) -> None:
    with pytest.raises(RefusedError) as caught:
        normalise_name(f"a{chr(code)}b")
    assert caught.value.code == ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize(
    ("sent", "path"),
    [(b"/sub/x\xff\x01y", b"sub/x"), (b"x\r\n", b"x"), (b"caf\xe9\x9b", b"caf\xe9\x9b"), (b"\\x", b"x")],
)
def test_name_of_what_is_made_is_what_was_meant(sent: bytes, path: bytes) -> None:
    assert normalise_name(os.fsdecode(sent)) == path


@given(st.binary(min_size=1))
def test_spelling_twice_changes_nothing(name: bytes) -> None:
    for path in spellings_of(os.fsdecode(name.replace(b"\0", b""))):
        assert path
        assert not path.startswith(b"/")
        assert spellings_of(os.fsdecode(path))[0] == path


@pytest.mark.parametrize(
    ("path", "climbs"),
    [(b"..", True), (b"a/../..", True), (b"a/../../b", True), (b"a/..", False), (b"a/b/../../c", False), (b".", False)],
)
def test_climbing_by_name_alone_is_told(path: bytes, climbs: bool) -> None:
    assert climbs_above_root(path) is climbs


# ---- names of a configuration


def others(names: Names, name: bytes) -> list[bytes]:
    return list(names.others_of(os.fsdecode(name)))


def test_without_settings_a_name_means_nothing_else() -> None:
    for name in (b"a", b"/srv/tftp/a", b"caf\xe9", "café".encode(), b"UPPER"):
        assert others(Names(), name) == []


@pytest.mark.parametrize(
    ("cut", "meant"),
    [
        ((), b"x\n \xff\x01y"),
        (("ff",), b"x\n "),
        (("blanks",), b"x\n \xff\x01y"),
        (("ff", "blanks"), b"x\n"),
        (("ff", "blanks", "controls"), b"x"),
        (("ff", "controls"), b"x\n "),
    ],
)
def test_only_what_the_setting_names_is_cut_off(cut: tuple[str, ...], meant: bytes) -> None:
    assert Names(cut=cut).spellings_of(os.fsdecode(b"x\n \xff\x01y"))[-1] == meant
    assert Names(cut=("controls",)).spellings_of("x\t\r\n")[-1] == b"x"
    assert Names(cut=("blanks",)).spellings_of("x\t  ")[-1] == b"x\t"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"/srv/tftp/x", [b"x"]),
        (b"srv/tftp/a/b", [b"a/b"]),
        (b"\\srv\\tftp\\a", [b"a"]),
        (b"//srv/./tftp//x", [b"x"]),
        (b"/srv/tftp/x\r\n", [b"x\r\n", b"x"]),
        (b"/srv/tftp", []),
        (b"/srv/tftp/", []),
        (b"/srv/tftpboot/x", []),
        (b"/srv/TFTP/x", []),
        (b"x/srv/tftp/y", []),
        (b"/srv/tftp/../x", [b"../x"]),  # which the kernel refuses
        (b"/srv/tftp/srv/tftp/x", [b"srv/tftp/x"]),
    ],
)
def test_root_is_stripped_once_from_the_beginning(name: bytes, found: list[bytes]) -> None:
    assert others(Names(root=b"/srv/tftp"), name) == found


@pytest.mark.parametrize("root", [b"/", b"", b"//"])
def test_root_of_the_file_system_strips_nothing(root: bytes) -> None:
    assert others(Names(root=root), b"/x") == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"caf\xe9", ["café".encode(), "cafΘ".encode()]),
        ("café".encode(), [b"caf\xe9", b"caf\x82"]),
        ("Ω".encode(), [b"\xea"]),  # latin-1 has none
        (b"plain", []),
        (b"a/\xe9/../\xe9", ["a/é/../é".encode(), "a/Θ/../Θ".encode()]),
    ],
)
def test_other_encodings_are_tried_both_ways(name: bytes, found: list[bytes]) -> None:
    assert others(Names(encodings=["iso8859-1", "cp437"]), name) == found


def test_lower_case_is_tried_of_all_that_a_name_may_mean() -> None:
    names = Names(root=b"/srv/tftp", encodings=["iso8859-1"], in_lower_case=True)
    assert others(names, b"/srv/tftp/CAF\xc9\n") == [
        b"CAF\xc9\n",
        b"CAF\xc9",
        "srv/tftp/CAFÉ\n".encode(),
        "srv/tftp/CAFÉ".encode(),
        "CAFÉ\n".encode(),
        "CAFÉ".encode(),
        b"srv/tftp/caf\xc9\n",
        b"srv/tftp/caf\xc9",
        b"caf\xc9\n",
        b"caf\xc9",
        "srv/tftp/café\n".encode(),
        "srv/tftp/café".encode(),
        "café\n".encode(),
        "café".encode(),
    ]


def test_no_character_becomes_a_separator_or_a_dot_by_its_case() -> None:
    for code in range(sys.maxunicode + 1):
        if code > 0x7F and not 0xD800 <= code < 0xE000:
            lower = in_lower_case(chr(code).encode())
            assert not any(byte < 0x80 for byte in lower), hex(code)
            assert in_lower_case(lower) == lower, hex(code)


FULL = Names(root=b"/srv/tftp", encodings=["iso8859-1", "cp437", "cp850", "koi8-r"], in_lower_case=True)
PARTS = st.sampled_from(["..", ".", "", "srv", "tftp", "Boot", "\udcff", "\udce9", "é", "İ", "K", "\\", "\r", " ", "."])


@given(st.one_of(st.binary().map(os.fsdecode), st.lists(PARTS).map("/".join)))
def test_no_spelling_says_more_than_the_name(name: str) -> None:
    name = name.replace("\0", "")
    found = [*FULL.spellings_of(name), *FULL.others_of(name)]
    for names in (FULL, Names(root=b"/srv/tftp"), Names(encodings=["cp437"])):
        assert names.may_mean_more(name) or not names.others_of(name)
    assert len(found) <= MAX_SPELLINGS
    assert len(set(found)) == len(found)
    climbs = max(text.replace("\\", "/").split("/").count("..") for text in (name, FULL.meant_by(name)))
    for path in found:
        parts = path.split(b"/")
        assert path == b"." or not {b"", b"."} & set(parts)
        assert b"\0" not in path
        assert parts.count(b"..") <= climbs
        assert len(path) <= max(1, 3 * len(os.fsencode(name)))


@pytest.mark.parametrize(
    ("name", "path"), [("/srv/tftp/up/x", b"up/x"), ("up/x\r\n", b"up/x"), ("srv/tftp", b"srv/tftp"), ("/x", b"x")]
)
def test_name_of_what_is_made_lies_below_the_root(name: str, path: bytes) -> None:
    assert FULL.normalise(name) == path
