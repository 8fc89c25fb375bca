"""Checklist of netascii: line ends both ways, under any chunking, against a byte-by-byte reading of the RFC."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snow_owl_tftp.protocol.netascii import NetasciiDecoder, decode_chunks, encode, encode_chunks, encoded_size

# Mostly the four bytes that matter, or chance would hardly ever put two of them side by side.
TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"a", b"\xff"]), max_size=40).map(b"".join)
CHUNKS = st.lists(TEXT, max_size=8)


def decode_by_the_book(wire):
    """The RFC read byte by byte: slow, and obviously right."""
    local, rest = bytearray(), list(wire)
    while rest:
        byte = rest.pop(0)
        if byte == 13 and rest and rest[0] in (10, 0):
            local.append(10 if rest.pop(0) == 10 else 13)
        else:
            local.append(byte)
    return bytes(local)


def cut(text, borders):
    edges = [0, *sorted(border % (len(text) + 1) for border in borders), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize(
    ("local", "wire"),
    [
        (b"", b""),
        (b"plain \x00\xff", b"plain \x00\xff"),
        (b"\n", b"\r\n"),
        (b"\r", b"\r\0"),
        (b"\r\n", b"\r\0\r\n"),
        (b"\n\r", b"\r\n\r\0"),
        (b"\r\0", b"\r\0\0"),
        (b"a\nb\n", b"a\r\nb\r\n"),
    ],
)
def test_line_ends_on_the_wire_are_those_of_the_rfc(local, wire):
    assert encode(local) == wire
    assert b"".join(decode_chunks([wire])) == local


@pytest.mark.parametrize(
    ("wire", "local"),
    [(b"a\rb", b"a\rb"), (b"\r\r\n", b"\r\n"), (b"\r\0\n", b"\r\n"), (b"\n\0", b"\n\0"), (b"\r", b"\r")],
)
def test_lone_cr_is_kept(wire, local):
    assert b"".join(decode_chunks([wire])) == local


@given(CHUNKS)
def test_encoding_is_the_same_under_any_chunking(chunks):
    assert b"".join(encode_chunks(chunks)) == encode(b"".join(chunks))


@given(TEXT, st.lists(st.integers(0, 40), max_size=5))
@example(b"a\r\nb", [2])
@example(b"a\r\0b", [2])
@example(b"\r\r\n", [1, 1, 2])
def test_decoding_is_the_same_under_any_chunking(wire, borders):
    assert b"".join(decode_chunks(cut(wire, borders))) == decode_by_the_book(wire)


@given(TEXT, st.lists(st.integers(0, 80), max_size=5))
def test_roundtrip_under_any_chunking(local, borders):
    assert b"".join(decode_chunks(cut(encode(local), borders))) == local


@given(st.binary(max_size=300))
def test_roundtrip_of_arbitrary_bytes(local):
    assert b"".join(decode_chunks([encode(local)])) == local


@given(CHUNKS)
def test_encoded_size_is_exact(chunks):
    assert encoded_size(chunks) == len(encode(b"".join(chunks)))


def test_encoded_size_reads_a_stream_once():
    assert encoded_size(iter([b"a\n", b"\r"])) == 5


@pytest.mark.parametrize("blksize", [8, 511, 512, 513])
def test_cr_at_the_end_of_a_block_waits_for_the_next_one(blksize):
    decoder = NetasciiDecoder()
    assert decoder.decode(b"a" * (blksize - 1) + b"\r") == b"a" * (blksize - 1)
    assert decoder.decode(b"") == b""
    assert decoder.decode(b"\nz") == b"\nz"
    assert decoder.finish() == b""


def test_cr_at_the_very_end_is_given_out_once():
    decoder = NetasciiDecoder()
    assert decoder.decode(b"a\r") == b"a"
    assert decoder.finish() == b"\r"
    assert decoder.finish() == b""
    assert decoder.decode(b"\n") == b"\n"
