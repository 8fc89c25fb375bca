"""What an upload sends is what reading the object gives, whatever lies below it."""

import bz2
import gzip
import lzma
import os
from pathlib import Path

import pytest

from snow_owl_tftp.client.sources import source_for

CONTENT = b"what is in the file\n" * 5000


def sent(content, mode="octet") -> bytes:
    source = source_for(content, mode)
    try:
        return os.pread(source.fd, source.size_bytes + 1, 0)
    finally:
        source.close()


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_compressed_file_is_sent_as_it_reads(tmp_path, module):
    with module.open(tmp_path / "x", "wb") as file:
        file.write(CONTENT)
    with module.open(tmp_path / "x", "rb") as file:
        assert sent(file) == CONTENT


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("flags", ["rb", "r+b"])
def test_plain_file_is_not_copied(tmp_path, buffering, flags):
    path = tmp_path / "x"
    path.write_bytes(CONTENT)
    with path.open(flags, buffering=buffering) as file:
        source = source_for(file, "octet")
        assert os.fstat(source.fd).st_ino == path.stat().st_ino
        source.close()


def test_raw_file_that_would_block_is_an_error():
    read, write = os.pipe2(os.O_NONBLOCK)
    with os.fdopen(read, "rb", buffering=0) as file, os.fdopen(write, "wb", buffering=0) as other:
        other.write(b"half")
        with pytest.raises(BlockingIOError):
            source_for(file, "octet")


@pytest.mark.parametrize("path", ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"])
@pytest.mark.parametrize("kind", ["path", "file", "unbuffered"])
def test_files_that_the_kernel_writes_as_they_are_read(path, kind):
    if not Path(path).exists():
        pytest.skip(f"MISSING: {path}")
    expected = Path(path).read_bytes()
    assert expected
    if kind == "path":
        assert sent(path) == expected
    else:
        with Path(path).open("rb", buffering=0 if kind == "unbuffered" else -1) as file:
            assert sent(file) == expected


def test_empty_file_is_empty(tmp_path):
    (tmp_path / "x").touch()
    assert sent(tmp_path / "x") == b""
