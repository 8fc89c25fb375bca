"""How names of requests are spelled before anything looks at them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.content.names import climbs_above_root, normalise_name
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
    assert normalise_name(name) == path


@pytest.mark.parametrize(("name", "path"), [("\\boot\\x64\\boot.sdi", b"boot/x64/boot.sdi"), ("a\\..\\b", b"a/../b")])
def test_backslash_separates(name: str, path: bytes) -> None:
    assert normalise_name(name) == path


@pytest.mark.parametrize(("name", "path"), [("../x", b"../x"), ("a/../b", b"a/../b"), ("/..", b"..")])
def test_dot_dot_is_left_to_who_opens(name: str, path: bytes) -> None:
    assert normalise_name(name) == path


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_control_character_is_refused(code: int) -> None:
    with pytest.raises(RefusedError) as caught:
        normalise_name(f"a{chr(code)}b")
    assert caught.value.code == ErrorCode.ACCESS_VIOLATION


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_normalising_twice_changes_nothing(name: str) -> None:
    try:
        path = normalise_name(name)
    except RefusedError:
        return
    assert path
    assert not path.startswith(b"/")
    assert normalise_name(path.decode()) == path


@pytest.mark.parametrize(
    ("path", "climbs"),
    [(b"..", True), (b"a/../..", True), (b"a/../../b", True), (b"a/..", False), (b"a/b/../../c", False), (b".", False)],
)
def test_climbing_by_name_alone_is_told(path: bytes, climbs: bool) -> None:
    assert climbs_above_root(path) is climbs
