"""The engine's conversion to netascii: that of protocol.netascii, without the GIL."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp._engine import netascii as native
from snow_owl_tftp.protocol import netascii

TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"a", b"\xff"]), max_size=70).map(b"".join)
DEADLINE_S = 60


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
    """What this thread counts stands still while another one holds the GIL."""
    counted, is_over = 0, threading.Event()
    text, moved = b"\n" * (32 << 20), list[int]()

    def convert() -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        # Not once for all: between two instructions the GIL may change hands, and a busy machine may give this
        # thread no core meanwhile. That it moves by a thousand, each time by chance, is out of the question.
        while len(moved) < 3 and time.monotonic() < deadline_s:
            before = counted
            native.encode(text)
            if counted - before > 1000:
                moved.append(counted - before)
        is_over.set()

    thread = threading.Thread(target=convert)
    thread.start()
    while not is_over.is_set():
        counted += 1
    thread.join()
    assert len(moved) == 3
