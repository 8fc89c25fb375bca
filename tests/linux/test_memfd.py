"""Files in memory: filled, sealed, or gone."""

import errno
import os

import pytest
from tests.support.descriptors import open_descriptors

from snow_owl_tftp.linux.memfd import FULL, READ_ONLY, memory_file


def test_file_holds_its_chunks_and_is_no_childs():
    fd = memory_file("x", iter([b"ab", b"", b"c"]))
    assert os.pread(fd, 10, 0) == b"abc"
    assert not os.get_inheritable(fd)
    os.pwrite(fd, b"d", 3)  # without seals it stays writable
    os.close(fd)


@pytest.mark.parametrize("act", [lambda fd: os.pwrite(fd, b"x", 0), lambda fd: os.ftruncate(fd, 1)])
def test_read_only_is_sealed_with_its_size_and_bytes(act):
    fd = memory_file("x", [b"abc"], seals=READ_ONLY)
    with pytest.raises(PermissionError):
        act(fd)
    assert os.pread(fd, 10, 0) == b"abc"
    os.close(fd)


def test_full_takes_nothing():
    fd = memory_file("x", seals=FULL)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    os.close(fd)


def test_chunks_that_fail_leave_no_descriptor():
    def chunks():
        yield b"a"
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = open_descriptors()
    with pytest.raises(OSError, match="Input/output"):
        memory_file("x", chunks())
    assert open_descriptors() == before
