"""Local text to netascii and back, chunk by chunk.

    local   LF      CR        any other byte
    wire    CR LF   CR NUL    the same byte

netascii is the ASCII of RFC 764 (Telnet, "The NVT Printer") as RFC 1350 section 1 cites it: a CR
is followed by LF or NUL, always. "Local" is a file of Linux, whose lines end with LF.

Invariants:
- decode(encode(x)) == x for every x, whatever the chunks: a file that already holds CR LF too.
- `encoded_size` tells the size on the wire without encoding; whoever cannot read a text twice knows no size.
- Encoding needs no memory between chunks; decoding needs one bit: "the last byte was a CR".
- No loop over single bytes: bytes.replace and bytes.count do the work.

Does no I/O and knows no block: where the chunks come from and go to is the caller's affair.
"""

from collections.abc import Iterable, Iterator

__all__ = ["NetasciiDecoder", "decode_chunks", "encode", "encode_chunks", "encoded_size"]

_CR = b"\r"


def encode(chunk: bytes) -> bytes:
    """Convert local bytes to netascii; chunks may be converted one by one and joined."""
    # CR first: the CRs that the second replace brings in are line ends and stay as they are.
    return chunk.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


def encode_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Convert a stream of local bytes, yielding one chunk for each."""
    return map(encode, chunks)


def encoded_size(chunks: Iterable[bytes]) -> int:
    """Return how many bytes `chunks` take in netascii, without converting them."""
    return sum(len(chunk) + chunk.count(b"\r") + chunk.count(b"\n") for chunk in chunks)


class NetasciiDecoder:
    """Converts a stream of netascii to local bytes.

    A CR at the end of a chunk is held back until its second half arrives, which may be with the
    next DATA. `finish` must be called at the end, or a last lone CR is lost.

    Deviates: a CR followed by neither LF nor NUL is illegal, and is kept as it is; so no byte of a
    client that sends binary as netascii disappears (test_lone_cr_is_kept).
    """

    __slots__ = ("_held_back",)

    def __init__(self) -> None:
        self._held_back = b""

    def decode(self, chunk: bytes) -> bytes:
        """Convert the next bytes; the result may be empty, and lacks a CR held back."""
        chunk = self._held_back + chunk
        if chunk.endswith(_CR):
            self._held_back = _CR
            chunk = chunk[:-1]
        else:
            self._held_back = b""
        # CR LF first: after the other order, CR NUL LF (a CR, then a stray LF) would read CR LF.
        return chunk.replace(b"\r\n", b"\n").replace(b"\r\0", b"\r")

    def finish(self) -> bytes:
        """Return the CR that nothing followed, or nothing; the decoder is then as new."""
        rest, self._held_back = self._held_back, b""
        return rest


def decode_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Convert a whole stream of netascii, its end included."""
    decoder = NetasciiDecoder()
    for chunk in chunks:
        yield decoder.decode(chunk)
    yield decoder.finish()
