# Local text to netascii without the GIL: protocol/netascii.py, which the tests compare with this, holds it for as long
# as a piece takes, and nothing of Python goes on meanwhile.
#
#     local   LF      CR        any other byte
#     wire    CR LF   CR NUL    the same byte
#
# Two passes, since the result is a bytes object and has its size from the start.  No state: pieces may be converted
# one by one and joined.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef enum:
    LF = 10
    CR = 13


cdef size_t encoded_size(const uint8_t *local, size_t size) noexcept nogil:
    cdef size_t i, more = 0
    for i in range(size):
        more += (local[i] == LF) | (local[i] == CR)
    return size + more


cdef void encode_into(const uint8_t *local, size_t size, uint8_t *wire) noexcept nogil:
    """`wire` has room for encoded_size()."""
    cdef size_t i = 0, began
    while i < size:
        began = i
        while i < size and local[i] != LF and local[i] != CR:
            i += 1
        memcpy(wire, local + began, i - began)
        wire += i - began
        if i < size:
            wire[0] = CR
            wire[1] = LF if local[i] == LF else 0
            wire += 2
            i += 1


def encode(bytes chunk not None):
    """Converts local bytes to netascii.

    GIL: given up for both passes.  Allocates: the result.
    """
    cdef const uint8_t *local = <const uint8_t *>PyBytes_AS_STRING(chunk)
    cdef size_t size = PyBytes_GET_SIZE(chunk), wire_bytes
    cdef bytes wire
    cdef uint8_t *to
    with nogil:
        wire_bytes = encoded_size(local, size)
    if wire_bytes == size:
        return chunk                             # nothing to convert; bytes do not change
    wire = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>wire_bytes)
    to = <uint8_t *>PyBytes_AS_STRING(wire)      # nobody else has it yet
    with nogil:
        encode_into(local, size, to)
    return wire
