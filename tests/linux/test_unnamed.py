"""A file without a name gets one if it is free; where there are no such files, a rename that replaces nothing."""

import errno
import os

import pytest
from tests.support.descriptors import open_descriptors

from snow_owl_tftp.linux import unnamed
from snow_owl_tftp.linux.unnamed import give_name, open_unnamed, rename_new


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def folder(tmp_path):
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture(params=["renameat2", "link and unlink", "refused by the file system"])
def way(request, monkeypatch):
    """Every way to rename without replacing."""
    if request.param == "link and unlink":
        monkeypatch.setattr(unnamed, "_renameat2", None)
    elif request.param == "refused by the file system":
        monkeypatch.setattr(unnamed, "_renameat2", lambda *_: -1)
        monkeypatch.setattr(unnamed.ctypes, "get_errno", lambda: errno.EINVAL)


def test_file_appears_with_its_name_and_content(tmp_path, folder):
    fd = open_unnamed(b".", 0o600, dir_fd=folder)
    os.write(fd, b"abc")
    assert names(tmp_path) == []
    give_name(fd, b"x", dir_fd=folder)
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"abc"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_path_needs_no_directory(tmp_path):
    fd = open_unnamed(tmp_path, 0o644)
    give_name(fd, tmp_path / "x")
    os.close(fd)
    assert names(tmp_path) == ["x"]


def test_name_that_is_taken_stays(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    fd = open_unnamed(tmp_path, 0o644)
    with pytest.raises(FileExistsError):
        give_name(fd, tmp_path / "x")
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_file_system_without_such_files_is_no_error(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(unnamed.os, "open", refuse)
    assert open_unnamed(tmp_path, 0o644) == -1


def test_file_that_could_never_get_a_name_is_none(tmp_path, monkeypatch):
    before = open_descriptors()
    monkeypatch.setattr(unnamed.os, "access", lambda *_: False)  # no /proc
    assert open_unnamed(tmp_path, 0o644) == -1
    assert open_descriptors() == before


def test_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_unnamed(tmp_path / "missing", 0o644)


@pytest.mark.usefixtures("way")
def test_renamed_file_has_one_name(tmp_path, folder):
    (tmp_path / "old").write_bytes(b"abc")
    rename_new(b"old", b"new", src_dir_fd=folder, dst_dir_fd=folder)
    assert names(tmp_path) == ["new"]


@pytest.mark.usefixtures("way")
def test_rename_replaces_nothing(tmp_path, folder):
    (tmp_path / "old").write_bytes(b"abc")
    (tmp_path / "new").write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        rename_new(b"old", b"new", src_dir_fd=folder, dst_dir_fd=folder)
    assert (tmp_path / "new").read_bytes() == b"kept"
    assert (tmp_path / "old").read_bytes() == b"abc"
