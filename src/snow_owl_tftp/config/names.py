"""[names]: how the name of a request becomes the name of a file.

    NamesSettings ──problems_of──► what is wrong, a line each
    "latin-1" ──codec_named──► "iso8859-1", or ConfigError

May know: the vocabulary, its ranges and its defaults. Must not spell a name: `content.names` does.

Invariant: a codec that is taken leaves ASCII alone, byte for byte, in both directions. So no name gains or loses a "/",
a "." or a NUL by being written in another encoding.
"""

import codecs
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from snow_owl_tftp.errors import ConfigError

__all__ = ["CUTS", "NamesSettings", "codec_named", "problems_of"]

CUTS: Final = ("ff", "blanks", "controls")
"""What firmware hangs behind a name: 0xFF and all that follows it, blanks, control characters."""
_MAX_ENCODINGS: Final = 4
"""Each is one more look-up for a name beyond ASCII that is not there."""
_ASCII: Final = bytes(range(0x80))


class NamesSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[names]: how the name of a request becomes the name of a file."""

    case: Literal["exact", "lower", "insensitive"] = "exact"
    """What is tried where no file has the name as sent: nothing, the name in lower case, or the one file whose name
    differs in case only."""
    max_indexed: Annotated[int, Meta(ge=1, le=10_000_000)] = 200_000
    """Files and directories that `case = "insensitive"` keeps in memory."""
    hidden: bool = False
    """Serve names of which a part begins with a dot."""
    strip_root: bool = True
    """Take "/srv/tftp/x" for "x" where `root_dir` is "/srv/tftp"."""
    encodings: tuple[str, ...] = ()
    """In which clients may write what the disk has in UTF-8, and the other way round."""
    cut: tuple[str, ...] = CUTS
    """What firmware hangs behind names, and is taken off where there is no file of the name as sent."""
    siblings: tuple[str, ...] = ()
    """Names that are looked for beside the client's last file."""
    optional: tuple[str, ...] = ()
    """Names whose absence is no failure."""


def problems_of(names: NamesSettings) -> Iterator[str]:
    """Yield what types alone do not say, each with its key and the remedy."""
    for cut in names.cut:
        if cut not in CUTS:
            yield f'names.cut: expected a list of "ff", "blanks", "controls", got "{cut}"'
    if len(names.encodings) > _MAX_ENCODINGS:
        yield f"names.encodings: expected at most {_MAX_ENCODINGS}, got {len(names.encodings)}"
    for encoding in names.encodings[:_MAX_ENCODINGS]:
        try:
            codec_named(encoding)
        except ConfigError as error:
            yield f"names.encodings: {error}"


@lru_cache(maxsize=64)
def codec_named(name: str) -> str:
    """Return Python's name of a codec that holds one character in one byte, and ASCII in its own.

    Raises:
        ConfigError: There is no such codec, or it is of another kind.
    """
    try:
        info = codecs.lookup(name)
        is_taken = _ASCII.decode(info.name) == _ASCII.decode("ascii") and _extends_ascii(info.name)
    except (LookupError, ValueError):  # there is none, it is none for text, or it cannot even do ASCII
        is_taken = False
    if not is_taken:
        raise ConfigError(f'"{name}" does not extend ASCII by one byte a character; name one like "latin-1" or "cp437"')
    return info.name


def _extends_ascii(name: str) -> bool:
    """Whether some bytes beyond ASCII stand for one character beyond ASCII each, and the others for nothing at all."""
    single = [byte for byte in range(0x80, 0x100) if _decoded(name, bytes([byte])) is not None]
    begins = [byte for byte in range(0x80, 0x100) if byte not in single]
    is_kept = all((text := _decoded(name, bytes([byte]))) and not text.isascii() for byte in single)
    # Of a codec with longer characters some byte that means nothing alone begins one.
    return bool(single) and is_kept and not any(_decoded(name, bytes(two)) for two in product(begins, range(0x100)))


def _decoded(name: str, data: bytes) -> str | None:
    try:
        return data.decode(name)
    except UnicodeDecodeError:
        return None
