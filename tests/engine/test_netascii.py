"""The engine's conversion to netascii: that of protocol.netascii, without the GIL."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp._engine.protocol import netascii as native
from snow_owl_tftp.protocol import netascii

TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"a", b"\xff"]), max_size=70).map(b"".join)
TRIES = 20


@given(TEXT | st.binary(max_size=300))
def test_conversion_is_the_models(chunk):
    assert native.encode(chunk) == netascii.encode(chunk)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 65535, 65536, 65537])
@pytest.mark.parametrize("letters", [b"\n", b"\r", b"x", b"\r\n", b"a line\n"])
def test_conversion_of_a_whole_piece_is_the_models(letters, size):
    chunk = (letters * size)[:size]
    assert native.encode(chunk) == netascii.encode(chunk)


@pytest.mark.parametrize("wrong", [None, "text", bytearray(b"x")])
def test_only_bytes_are_converted(wrong):
    with pytest.raises(TypeError):
        native.encode(wrong)


def test_python_goes_on_while_a_text_is_converted():
    """This thread stands still for less than half of the time that another converts; if that holds the GIL, for all."""
    ticks = {"last_s": time.perf_counter(), "longest_s": 0.0}
    is_over, shares = threading.Event(), list[float]()
    text = b"\n" * (32 << 20)

    def convert() -> None:
        # Several times: a busy machine may leave the other thread no core for so long.
        while len(shares) < TRIES and min(shares, default=1.0) > 0.5:
            ticks["longest_s"] = 0.0
            began_s = time.perf_counter()
            native.encode(text)
            ended_s = time.perf_counter()
            stood_still_s = max(ticks["longest_s"], ended_s - max(ticks["last_s"], began_s))
            shares.append(stood_still_s / (ended_s - began_s))
        is_over.set()

    thread = threading.Thread(target=convert)
    thread.start()
    while not is_over.is_set():
        now_s = time.perf_counter()
        ticks["longest_s"] = max(ticks["longest_s"], now_s - ticks["last_s"])
        ticks["last_s"] = now_s
    thread.join()
    assert min(shares) <= 0.5, shares
