"""One event, one line, whatever a peer put into it.

May know text and the clock's number. Must not write anywhere.

Invariant: no text that came from outside can end a line, start another one, or reach a terminal as
a control sequence. A file name is chosen by whoever can send a datagram, and a line break in it
must not read as a second event.
"""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

__all__ = ["escape_name", "json_line", "utc_timestamp"]

_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\"}
# JSON encoders escape C0; these end lines or steer terminals as well and are legal within JSON.
_RISKY_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_encode_json = msgspec.json.Encoder(enc_hook=str).encode


def escape_name(name: str | bytes) -> str:
    r"""Make outside text harmless within a line, and still readable back.

    Args:
        name: A file name, or any other text that a peer chose.

    Returns:
        The text with everything that is not printable, and every backslash, written as Python
        would: a line break as "\n", ESC as "\x1b"; a byte that is no UTF-8 as "\xe9", whether it
        comes as itself or as the lone surrogate that stands for it.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    if text.isprintable() and "\\" not in text:
        return text
    if text.isascii():
        return text.encode("unicode_escape").decode("ascii")  # the same, at once: a name may be all of it
    return "".join(_escape_character(character) for character in text)


def json_line(fields: Mapping[str, Any]) -> bytes:
    r"""Encode one JSON object and its line end; what a JSON reader gets back is unchanged, but for lone surrogates.

    Those stand for bytes that are no UTF-8, and many readers refuse the whole line for one of them: they become
    four characters, "\xe9".

    Args:
        fields: Anything; bytes are taken for a path, and what JSON does not know is written as text.
    """
    as_text = {key: _text_of(value) for key, value in fields.items()}
    try:
        line = _encode_json(as_text)
    except UnicodeEncodeError:
        import json  # lazy: hardly ever needed

        text = json.dumps(as_text, default=str, separators=(",", ":"), ensure_ascii=False)
        # Between quotes of JSON a backslash is written twice.
        line = _SURROGATE.sub(lambda found: "\\" + _escape_character(found[0]), text).encode()
    if not line.isascii() or b"\x7f" in line:
        line = _RISKY_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()
    return line + b"\n"


def utc_timestamp(now_s: float) -> str:
    """Write seconds since 1970 as "2026-01-31T12:00:00.123Z"."""
    whole_s = int(now_s)
    return f"{_utc_second(whole_s)}.{int((now_s - whole_s) * 1000):03d}Z"


@lru_cache(maxsize=2)  # thousands of events share a second
def _utc_second(whole_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole_s))


@lru_cache(maxsize=4096)
def _escape_character(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _text_of(value: object) -> object:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
