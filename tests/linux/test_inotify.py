"""What inotify says of names that come and go."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.descriptors import open_descriptors

from snow_owl_tftp.linux import inotify as module
from snow_owl_tftp.linux.inotify import Change, Inotify


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    inotify = Inotify()
    yield inotify
    inotify.close()


def watch(inotify: Inotify, path: Path) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        return inotify.watch(fd)
    finally:
        os.close(fd)


def heard(inotify: Inotify) -> set[Change]:
    select.select([inotify.fd], [], [], 5)
    return set(inotify.read())


def test_file_that_comes_or_goes_is_told_with_its_directory(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    top, below = watch(inotify, tmp_path), watch(inotify, tmp_path / "b")
    assert inotify.read() == []
    (tmp_path / "file").touch()
    assert heard(inotify) == {Change(top, is_of_directory=False, is_lost=False)}
    (tmp_path / "file").rename(tmp_path / "b/file")
    assert heard(inotify) == {Change(watch, is_of_directory=False, is_lost=False) for watch in (top, below)}
    (tmp_path / "b/file").write_bytes(b"what is in it is nobody's business")
    assert inotify.read() == []
    (tmp_path / "b/file").unlink()
    assert heard(inotify) == {Change(below, is_of_directory=False, is_lost=False)}


def test_directory_that_comes_or_goes_is_told_as_one(inotify: Inotify, tmp_path: Path) -> None:
    top = watch(inotify, tmp_path)
    (tmp_path / "b").mkdir()
    assert heard(inotify) == {Change(top, is_of_directory=True, is_lost=False)}
    below = watch(inotify, tmp_path / "b")
    (tmp_path / "b").rmdir()
    told = heard(inotify)
    assert Change(top, is_of_directory=True, is_lost=False) in told
    assert Change(below, is_of_directory=False, is_lost=True) in told


def test_one_directory_has_one_number_and_what_is_forgotten_says_so(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    number = watch(inotify, tmp_path)
    assert watch(inotify, tmp_path / "link") == number
    inotify.forget(number)
    assert heard(inotify) == {Change(number, is_of_directory=False, is_lost=True)}
    (tmp_path / "file").touch()
    assert inotify.read() == []


def test_watch_of_what_is_no_directory_is_an_error(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        inotify.watch(fd)
    os.close(fd)


def test_system_without_inotify_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        @staticmethod
        def inotify_init1(flags: int) -> int:
            return -1

    monkeypatch.setattr(module, "_libc", Libc)
    with pytest.raises(OSError, match="inotify_init1"):
        Inotify()


def test_close_leaves_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    inotify = Inotify()
    watch(inotify, tmp_path)
    inotify.close()
    inotify.close()
    assert open_descriptors() == before
