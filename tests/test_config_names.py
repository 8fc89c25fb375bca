"""[names]: which codecs are taken, and that none of them could make a name into another one's path."""

import encodings.aliases

import pytest

from snow_owl_tftp.config.names import codec_named
from snow_owl_tftp.errors import ConfigError

ALL = sorted(set(encodings.aliases.aliases.values()))


def taken(name: str) -> bool:
    try:
        codec_named(name)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(("name", "meant"), [("latin-1", "iso8859-1"), ("CP437", "cp437"), ("koi8_r", "koi8-r")])
def test_codec_of_one_byte_a_character_is_taken(name: str, meant: str) -> None:
    assert codec_named(name) == meant


@pytest.mark.parametrize(
    "name", ["utf-8", "ascii", "utf-16", "utf-7", "big5", "shift_jis", "gb18030", "idna", "hex", "rot13", "no such", ""]
)
def test_any_other_codec_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(ConfigError, match='name one like "latin-1"'):
        codec_named(name)


def test_codecs_that_are_taken_leave_ascii_alone_both_ways() -> None:
    """So no "/", no "." and no NUL appears or is lost when a name is written in another encoding."""
    names = [name for name in ALL if taken(name)]
    assert len(names) > 30, "nothing was tried"
    for name in names:
        assert bytes(range(128)).decode(name).encode("utf-8") == bytes(range(128))
        for code in range(0x80, 0x3000):
            written = chr(code).encode(name, "ignore")
            assert not written or (len(written) == 1 and not written.isascii()), (name, code)
