"""All of it is written, however little the kernel takes at a time."""

import errno
import os

import pytest

from snow_owl_tftp.linux import write_all as module
from snow_owl_tftp.linux.write_all import pwrite_all, write_all

DATA = os.urandom(1000)


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def sparing(monkeypatch):
    """A kernel that takes 7 bytes a call, as one that is interrupted, or short of room, may."""
    write, pwrite = os.write, os.pwrite
    monkeypatch.setattr(module.os, "write", lambda fd, data: write(fd, data[:7]))
    monkeypatch.setattr(module.os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:7], offset))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_taken_in_parts_is_written_whole(fd, sparing, kind):
    write_all(fd, kind(DATA))
    assert os.pread(fd, 2000, 0) == DATA


def test_parts_at_an_offset_stand_behind_one_another(fd, sparing):
    assert pwrite_all(fd, DATA, 10) == 1010
    assert pwrite_all(fd, b"", 1010) == 1010
    assert os.pread(fd, 2000, 0) == bytes(10) + DATA


def test_failure_after_a_part_is_raised(fd, monkeypatch):
    taken = [7]

    def full(fd, data):
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken.pop()

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_all(fd, DATA)
