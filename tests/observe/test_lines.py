"""Text of peers within a line: harmless, and still readable back."""

import ast
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.observe import lines
from snow_owl_tftp.observe.lines import escape_name, json_line, utc_timestamp

LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
BIDI_CONTROLS = "\u202a\u202e\u2066\u2069"


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("pxelinux.cfg/default", "pxelinux.cfg/default"),
        ("with space", "with space"),
        ("grüße/日本", "grüße/日本"),
        ("a\nb", r"a\nb"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\x00b\x7f", r"a\x00b\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u202eb", r"a\u202eb"),
        ("boot\\x64", r"boot\\x64"),
        ("\\n", r"\\n"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        (b"sub/file", "sub/file"),
        (b"a\xffb\n", r"a\xffb\n"),
    ],
)
def test_name_is_escaped(name: str | bytes, escaped: str) -> None:
    assert escape_name(name) == escaped


@given(st.text())
def test_escaped_name_is_printable_and_reads_back(name: str) -> None:
    escaped = escape_name(name)
    assert escaped.isprintable()
    assert ast.literal_eval('"' + escaped.replace('"', r"\"") + '"') == name


@given(st.dictionaries(st.text(), st.text(alphabet=st.characters()) | st.integers(-(2**63), 2**63 - 1) | st.none()))
def test_json_line_is_one_line_and_reads_back(fields: dict[str, str | int | None]) -> None:
    line = json_line(fields)
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == fields


@pytest.mark.parametrize("character", LINE_BREAKS + BIDI_CONTROLS + "\x1b\x7f\x9b")
def test_json_line_holds_no_control_character_raw(character: str) -> None:
    line = json_line({"name": f"a{character}b"})
    assert character not in line.decode()[:-1]
    assert json.loads(line) == {"name": f"a{character}b"}


def test_json_line_writes_bytes_as_the_path_they_are() -> None:
    assert json.loads(json_line({"path": b"sub/file"})) == {"path": "sub/file"}
    assert json_line({"path": "grüße".encode()}) == '{"path":"grüße"}\n'.encode()


@pytest.mark.parametrize("name", [b"caf\xe9.cfg", "caf\udce9.cfg"])
def test_json_line_escapes_what_no_reader_of_utf8_takes(name: str | bytes) -> None:
    line = json_line({"path": name, "options": {"x\udcff": "€"}})
    assert json.loads(line) == {"path": r"caf\xe9.cfg", "options": {r"x\xff": "€"}}
    # A lone surrogate as an escape of JSON would pass Python, and fail jq, Go and Rust.
    assert b"\\ud" not in line


def test_json_line_writes_the_unknown_as_text() -> None:
    assert json_line({"error": ValueError("x")}) == b'{"error":"x"}\n'
    assert json.loads(json_line({"error": ValueError("x"), "name": "\udcff"})) == {"error": "x", "name": r"\xff"}


@pytest.mark.parametrize(
    ("now_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1767225599.9994, "2025-12-31T23:59:59.999Z"),
        (1767225600.25, "2026-01-01T00:00:00.250Z"),
    ],
)
def test_timestamp_is_utc_with_milliseconds(now_s: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines._utc_second.cache_clear()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert utc_timestamp(now_s) == text
    finally:
        monkeypatch.undo()
        time.tzset()
