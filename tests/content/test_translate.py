"""netascii copies: exact, sealed, made once, bounded."""

import errno
import fcntl
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.content import translate
from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.text import PIECE_BYTES
from snow_owl_tftp.content.translate import NetasciiCache
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.constants import ErrorCode

WAIT_S = 20
CHUNK_BYTES = PIECE_BYTES


def open_file(path: Path) -> OpenFile:
    fd = os.open(path, os.O_RDONLY)
    return OpenFile(fd, os.fsencode(path.name), os.fstat(fd))


def make_cache(**bounds: Any) -> NetasciiCache:
    """One whose conversions a test may count, or hold up."""
    return NetasciiCache(encode=lambda chunk: netascii.encode(chunk), **bounds)


def content_of(file: OpenFile) -> bytes:
    return os.pread(file.fd, file.size_bytes + 1, 0)


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    yield
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


@pytest.fixture
def cache() -> Iterator[NetasciiCache]:
    cache = make_cache()
    yield cache
    cache.close()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[OpenFile]:
    (tmp_path / "text").write_bytes(b"one\ntwo\rthree\n")
    file = open_file(tmp_path / "text")
    yield file
    file.close()


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was encoded, chunk by chunk."""
    seen: list[bytes] = []

    def encode(chunk: bytes) -> bytes:
        seen.append(chunk)
        return bytes(chunk).replace(b"\n", b"\r\n")

    monkeypatch.setattr(netascii, "encode", encode)
    return seen


def test_copy_is_netascii_with_its_exact_size(cache: NetasciiCache, source: OpenFile) -> None:
    copy = cache.translate(source)
    assert content_of(copy) == b"one\r\ntwo\r\0three\r\n"
    assert copy.size_bytes == 17
    assert copy.relative_path == b"text"
    copy.close()
    assert content_of(source) == b"one\ntwo\rthree\n"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
def test_copy_is_exact_around_the_edges_of_chunks(
    cache: NetasciiCache, tmp_path: Path, rng: random.Random, size: int
) -> None:
    text = bytes(rng.choices(b"\r\nab", k=size))
    (tmp_path / "text").write_bytes(text)
    source = open_file(tmp_path / "text")
    copy = cache.translate(source)
    assert content_of(copy) == netascii.encode(text)
    copy.close()
    source.close()


def test_copy_describes_itself_and_not_its_source(cache: NetasciiCache, source: OpenFile) -> None:
    """Who streams it compares these with fstat of the descriptor to see a change."""
    copy = cache.translate(source)
    status = os.fstat(copy.fd)
    assert (copy.device, copy.inode, copy.mtime_ns) == (status.st_dev, status.st_ino, status.st_mtime_ns)
    copy.close()


def test_copy_is_sealed(cache: NetasciiCache, source: OpenFile) -> None:
    copy = cache.translate(source)
    for change in (lambda: os.write(copy.fd, b"x"), lambda: os.ftruncate(copy.fd, 0)):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(PermissionError):
        fcntl.fcntl(copy.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    assert not os.get_inheritable(copy.fd)
    copy.close()


def test_second_request_finds_the_first_copy(cache: NetasciiCache, source: OpenFile, conversions: list[bytes]) -> None:
    assert cache.cached(source) is None
    first = cache.translate(source)
    first.close()
    second, third = cache.translate(source), cache.cached(source)
    assert third is not None
    assert content_of(second) == content_of(third) == b"one\r\ntwo\rthree\r\n"
    assert second.fd != third.fd
    assert len(conversions) == 1
    second.close()
    third.close()


def test_changed_content_is_converted_anew(cache: NetasciiCache, tmp_path: Path) -> None:
    for text in (b"old\n", b"new\n"):
        (tmp_path / "text").write_bytes(text)
        os.utime(tmp_path / "text", ns=(0, text[0]))
        source = open_file(tmp_path / "text")
        copy = cache.translate(source)
        assert content_of(copy) == netascii.encode(text)
        copy.close()
        source.close()


@pytest.mark.parametrize("way", ["in place", "by a new file in the old inode"])
def test_content_with_the_size_and_times_of_the_old_one_is_converted_anew(
    cache: NetasciiCache, tmp_path: Path, way: str
) -> None:
    """A release with fixed times; where the inode number does not come back by itself it is made to."""
    path, fixed_ns = tmp_path / "text", 1_000_000_000
    inodes = set()
    for text in (b"old\n", b"new\n"):
        if way != "in place":
            path.unlink(missing_ok=True)
        path.write_bytes(text)
        os.utime(path, ns=(fixed_ns, fixed_ns))
        source = open_file(path)
        inodes.add(source.inode)
        source.inode = min(inodes)
        copy = cache.translate(source)
        assert content_of(copy) == netascii.encode(text)
        copy.close()
        source.close()


def test_copy_of_a_file_changed_just_now_is_not_kept_for_later(
    tmp_path: Path, conversions: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within one tick of the file system's clock looks like the first."""
    now_ns = [0]
    cache = make_cache(clock_ns=lambda: now_ns[0])
    (tmp_path / "text").write_bytes(b"old\n")
    source = open_file(tmp_path / "text")
    cache.translate(source).close()
    cache.translate(source).close()
    assert len(conversions) == 1
    now_ns[0] = translate._SETTLED_NS
    assert cache.cached(source) is None
    monkeypatch.setattr("time.time_ns", lambda: source.ctime_ns + 10 * translate._SETTLED_NS)
    cache.translate(source).close()
    assert len(conversions) == 2
    now_ns[0] *= 1000
    cache.translate(source).close()
    assert len(conversions) == 2
    source.close()
    cache.close()


@pytest.mark.parametrize("change", ["grown", "cut", "rewritten", "rewritten, time put back"])
def test_file_that_changes_gives_no_copy(cache: NetasciiCache, source: OpenFile, tmp_path: Path, change: str) -> None:
    with (tmp_path / "text").open("r+b") as file:
        if change == "grown":
            file.seek(0, os.SEEK_END)
            file.write(b"more")
        elif change == "cut":
            file.truncate(3)
        else:
            file.write(b"ONE")
    put_back = source.mtime_ns if "put back" in change else 1
    os.utime(tmp_path / "text", ns=(put_back, put_back))
    with pytest.raises(RefusedError, match="being changed") as caught:
        cache.translate(source)
    assert caught.value.code == ErrorCode.NOT_DEFINED
    assert cache.cached(source) is None


def test_file_that_grows_all_the_time_is_given_up(
    cache: NetasciiCache, source: OpenFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread, reads = os.pread, list[int]()

    def pread_and_append(fd: int, size: int, offset: int) -> bytes:
        with (tmp_path / "text").open("ab") as file:
            file.write(b"more\n")
        reads.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread_and_append)
    with pytest.raises(RefusedError, match="being changed"):
        cache.translate(source)
    assert reads == [source.size_bytes]


def test_file_that_ends_too_soon_is_given_up(
    cache: NetasciiCache, source: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut and has its old size again, all within one tick of its file system's clock."""
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(RefusedError, match="being changed"):
        cache.translate(source)


def test_storm_for_one_file_converts_it_once(
    cache: NetasciiCache, source: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gate = threading.Semaphore(0), threading.Event()
    calls: list[bytes] = []

    def encode(chunk: bytes) -> bytes:
        calls.append(chunk)
        assert gate.wait(WAIT_S)
        return bytes(chunk)

    real_make_or_wait = cache._make_or_wait

    def make_or_wait(source: OpenFile) -> None:
        asked.release()
        real_make_or_wait(source)

    monkeypatch.setattr(netascii, "encode", encode)
    monkeypatch.setattr(cache, "_make_or_wait", make_or_wait)
    sizes: list[int] = []

    def ask() -> None:
        copy = cache.translate(source)
        sizes.append(copy.size_bytes)
        copy.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        assert asked.acquire(timeout=WAIT_S)
    gate.set()
    for thread in threads:
        thread.join()
    assert sizes == [14] * 8
    assert len(calls) == 1


def test_failure_is_not_remembered(cache: NetasciiCache, source: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(RefusedError, match="I/O error"):
        cache.translate(source)
    monkeypatch.undo()
    copy = cache.translate(source)
    assert copy.size_bytes == 17
    copy.close()


@pytest.mark.parametrize("call", ["memfd_create", "write"])
@pytest.mark.parametrize("error_number", [errno.EMFILE, errno.ENOMEM, errno.ENOSPC])
def test_shortage_is_told_as_busy(
    cache: NetasciiCache, source: OpenFile, monkeypatch: pytest.MonkeyPatch, call: str, error_number: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(error_number, "short")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(RefusedError, match="busy") as caught:
        cache.translate(source)
    monkeypatch.undo()
    assert caught.value.code == ErrorCode.NOT_DEFINED


def test_shortage_of_descriptors_for_a_kept_copy_is_told_as_busy(
    cache: NetasciiCache, source: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.translate(source).close()

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "short")

    monkeypatch.setattr(fcntl, "fcntl", fail)
    with pytest.raises(RefusedError, match="busy"):
        cache.cached(source)


def test_write_in_pieces_loses_nothing(cache: NetasciiCache, source: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
    copy = cache.translate(source)
    assert content_of(copy) == b"one\r\ntwo\r\0three\r\n"
    copy.close()


def make_sources(tmp_path: Path, count: int, size: int) -> list[OpenFile]:
    for number in range(count):
        (tmp_path / f"text{number}").write_bytes(bytes([65 + number]) * size)
    return [open_file(tmp_path / f"text{number}") for number in range(count)]


def test_copies_longest_unused_go_first(tmp_path: Path) -> None:
    cache = make_cache(max_kept_bytes=250)
    sources = make_sources(tmp_path, 3, 100)
    for source in (sources[0], sources[1], sources[0], sources[2]):
        cache.translate(source).close()
    kept = [cache.cached(source) for source in sources]
    assert [copy is not None for copy in kept] == [True, False, True]
    for file in [*sources, *kept]:
        if file is not None:
            file.close()
    cache.close()


def test_copy_in_use_outlives_its_eviction(tmp_path: Path) -> None:
    cache = make_cache(max_kept_bytes=1)
    first, second = make_sources(tmp_path, 2, 100)
    copy = cache.translate(first)
    cache.translate(second).close()
    assert cache.cached(first) is None
    assert content_of(copy) == b"A" * 100
    cache.close()
    assert content_of(copy) == b"A" * 100
    for file in (first, second, copy):
        file.close()


def test_newest_copy_is_kept_whatever_its_size(tmp_path: Path, conversions: list[bytes]) -> None:
    cache = make_cache(max_kept_bytes=10)
    (source,) = make_sources(tmp_path, 1, 100)
    cache.translate(source).close()
    cache.translate(source).close()
    assert len(conversions) == 1
    source.close()
    cache.close()


def test_threads_with_many_files_get_each_its_own(tmp_path: Path) -> None:
    cache = make_cache(max_kept_bytes=250)
    sources = make_sources(tmp_path, 6, 100)
    wrong: list[int] = []

    def ask(offset: int) -> None:
        for step in range(100):
            number = (offset + step) % len(sources)
            copy = cache.translate(sources[number])
            if content_of(copy) != bytes([65 + number]) * 100:
                wrong.append(number)
            copy.close()

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache._kept_bytes == sum(kept.copy.size_bytes for kept in cache._kept.values()) <= 250
    assert total_bytes(cache) == cache._kept_bytes
    for source in sources:
        source.close()
    cache.close()


def total_bytes(cache: NetasciiCache) -> int:
    """What the cache believes that all copies take."""
    with cache._lock:
        cache._end_uses()
    return cache._total_bytes


def test_memory_of_all_copies_is_bounded_also_while_they_are_used(tmp_path: Path) -> None:
    cache = make_cache(max_kept_bytes=100, max_total_bytes=250)
    sources = make_sources(tmp_path, 4, 100)
    used = [cache.translate(source) for source in sources[:2]]
    with pytest.raises(RefusedError, match="busy"):
        cache.translate(sources[2])
    again = cache.cached(sources[1])  # one more user of a copy takes no more memory
    assert again is not None
    assert total_bytes(cache) == 200
    first = used.pop(0)
    first.close()
    del first  # its transfer has ended, and it was not kept
    third = cache.translate(sources[2])
    assert content_of(third) == b"C" * 100
    with pytest.raises(RefusedError, match="busy"):
        cache.translate(sources[3])
    for file in (*used, again, third, *sources):
        file.close()
    cache.close()
    del used, again, third, file
    assert total_bytes(cache) == 0


def test_copy_that_is_only_kept_makes_room(tmp_path: Path) -> None:
    cache = make_cache(max_kept_bytes=1000, max_total_bytes=250)
    sources = make_sources(tmp_path, 5, 100)
    for source in sources:
        cache.translate(source).close()
        source.close()
    assert total_bytes(cache) == cache._kept_bytes == 200
    cache.close()
    assert total_bytes(cache) == 0


@pytest.mark.parametrize("size", [0, 1])
def test_number_of_all_copies_is_bounded_also_while_they_are_used(tmp_path: Path, size: int) -> None:
    """Each has a descriptor, however small it is."""
    cache = make_cache(max_copies=4)
    sources = make_sources(tmp_path, 6, size)
    used = [cache.translate(source) for source in sources[:4]]
    with pytest.raises(RefusedError, match="busy"):
        cache.translate(sources[4])
    used.pop().close()
    used.append(cache.translate(sources[4]))
    with pytest.raises(RefusedError, match="busy"):
        cache.translate(sources[5])
    for file in (*used, *sources):
        file.close()
    cache.close()
    used.clear()
    del file
    assert (total_bytes(cache), cache._total_copies) == (0, 0)


def test_number_of_copies_that_are_only_kept_is_bounded(tmp_path: Path) -> None:
    cache = make_cache(max_copies=12)
    sources = make_sources(tmp_path, 9, 1)
    for source in sources:
        cache.translate(source).close()
        source.close()
    assert len(cache._kept) == 3
    cache.close()


def test_conversion_that_fails_gives_its_memory_back(
    cache: NetasciiCache, source: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(RefusedError, match="I/O error"):
        cache.translate(source)
    monkeypatch.undo()
    assert (total_bytes(cache), cache._total_copies) == (0, 0)
