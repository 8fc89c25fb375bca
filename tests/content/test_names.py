"""How names of requests are spelled before anything looks at them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.content.names import climbs_above_root, normalise_name, spellings_of
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
