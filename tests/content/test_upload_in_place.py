"""Files that cannot be replaced, only written: mounted by themselves, or in a directory that takes nothing new."""

import errno
import fcntl
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.content.test_uploads import Terms, names_below, put, receive, refusal
from tests.support.descriptors import descriptors_at_rest

from snow_owl_tftp.content.store import staging
from snow_owl_tftp.content.store.uploads import UploadArea, UploadError
from snow_owl_tftp.protocol.constants import ErrorCode

NOBODY = 65534
WRITABLE = Terms(b"sub/file", on_existing="replace_writable")
OLD = b"old content"


@pytest.fixture
def root() -> Iterator[Path]:
    """Not below tmp_path, which nobody but its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="in-place-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "sub").mkdir()
        yield root


@pytest.fixture
def area(root: Path) -> Iterator[UploadArea]:
    before = descriptors_at_rest()
    area = UploadArea(root)
    yield area
    area.close()
    assert descriptors_at_rest() == before, "a descriptor leaked"


@pytest.fixture
def file(root: Path) -> Path:
    path = root / "sub/file"
    path.write_bytes(OLD)
    path.chmod(0o666)
    return path


@contextmanager
def unprivileged(closed: Path) -> Iterator[None]:
    """Somebody who may enter a directory and make nothing there."""
    if os.geteuid():
        closed.chmod(0o555)
        yield
        closed.chmod(0o755)
        return
    closed.chmod(0o755)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture(params=["mounted", "mounted, rename simulated", "closed directory"])
def only_writable(request: pytest.FixtureRequest, file: Path, tmp_path: Path, monkeypatch: Any) -> Iterator[Path]:
    """The file, and what shows its content from outside."""
    if request.param == "closed directory":
        with unprivileged(file.parent):
            yield file
        return
    if request.param != "mounted":
        real_rename = os.rename

        def rename(source: bytes, target: bytes, **more: Any) -> None:
            if target == b"file":
                raise OSError(errno.EBUSY, "mounted")
            real_rename(source, target, **more)

        monkeypatch.setattr(os, "rename", rename)
        yield file
        return
    outside = tmp_path / "outside"
    outside.write_bytes(OLD)
    outside.chmod(0o666)
    mount = ["mount", "--bind", str(outside), str(file)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("CANNOT MOUNT a file: the real thing is NOT tested on this machine, only its simulation")
    yield outside
    subprocess.run(["umount", "-l", str(file)], check=True)


@pytest.mark.parametrize("size", [0, 1, len(OLD), 300_000])
@pytest.mark.parametrize("on_existing", ["replace", "replace_writable"])
def test_file_gets_the_content_and_stays_the_same_file(
    area: UploadArea, root: Path, only_writable: Path, size: int, on_existing: Any
) -> None:
    before, content = only_writable.stat(), bytes(i % 251 for i in range(size))
    stored = put(area, Terms(b"sub/file", on_existing=on_existing), content)
    after = only_writable.stat()
    assert only_writable.read_bytes() == content
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, before.st_uid, before.st_mode)
    assert (stored.size_bytes, stored.kept_as) == (size, b"")
    assert names_below(root) == {"sub", "sub/file"}


def test_netascii_is_decoded_first(area: UploadArea, only_writable: Path) -> None:
    put(area, WRITABLE, b"a\r\nb\r\0", is_netascii=True)
    assert only_writable.read_bytes() == b"a\nb\r"


def test_nothing_is_written_before_everything_was_received(area: UploadArea, only_writable: Path) -> None:
    for end in ("closed", "cut short"):
        upload = area.begin(WRITABLE, 1000)
        receive(upload, b"x" * 999)
        if end == "cut short":
            refusal(lambda upload=upload: upload.commit(999))
        upload.close()
        assert only_writable.read_bytes() == OLD


def test_file_that_another_writer_holds_is_left_alone(area: UploadArea, only_writable: Path) -> None:
    with only_writable.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        error = refusal(lambda: put(area, WRITABLE, b"new"))
    assert (error.code, error.text) == (ErrorCode.NOT_DEFINED, "Server busy, try again")
    assert only_writable.read_bytes() == OLD


def test_simultaneous_uploads_leave_one_of_them_whole(area: UploadArea, only_writable: Path) -> None:
    contents = [bytes([65 + number]) * (200_000 + number) for number in range(6)]
    uploads_ = [area.begin(WRITABLE) for _ in contents]
    for upload, content in zip(uploads_, contents, strict=True):
        receive(upload, content)
    threads = [
        threading.Thread(target=upload.commit, args=(len(content),))
        for upload, content in zip(uploads_, contents, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for upload in uploads_:
        upload.close()
    assert only_writable.read_bytes() in contents


def test_full_disk_is_found_out_while_the_old_content_is_there(
    area: UploadArea, only_writable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        assert offset + length == 5000
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    error = refusal(lambda: put(area, WRITABLE, bytes(5000)))
    assert error.code == ErrorCode.DISK_FULL
    assert only_writable.read_bytes() == OLD


def test_file_system_that_reserves_nothing_is_written_all_the_same(
    area: UploadArea, only_writable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "unknown")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    put(area, WRITABLE, bytes(5000))
    assert only_writable.read_bytes() == bytes(5000)


def test_it_is_synced_before_the_last_ack(
    area: UploadArea, only_writable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fsync, synced = os.fsync, set()

    def fsync(fd: int) -> None:
        synced.add((os.fstat(fd).st_ino, os.fstat(fd).st_size))
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    put(area, WRITABLE, b"new")
    assert (only_writable.stat().st_ino, 3) in synced


def test_version_of_a_mounted_file_is_a_copy(area: UploadArea, root: Path, tmp_path: Path, file: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(OLD)
    outside.chmod(0o640)
    mount = ["mount", "--bind", str(outside), str(file)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("CANNOT MOUNT a file: what becomes of its versions is NOT tested on this machine")
    try:
        stored = put(area, Terms(b"sub/file", on_existing="version"), b"new")
        assert outside.read_bytes() == b"new"
    finally:
        subprocess.run(["umount", "-l", str(file)], check=True)
    kept = root / "sub/file.~1~"
    assert (stored.kept_as, kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"file.~1~", OLD, 0o640)
    assert names_below(root) == {"sub", "sub/file", "sub/file.~1~"}


def test_file_with_a_second_name_is_never_written_in_place(
    area: UploadArea, root: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version that was kept a moment before is such a name."""

    def busy(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "a sticky directory")

    monkeypatch.setattr(staging.os, "rename", busy)
    error = refusal(lambda: put(area, Terms(b"sub/file", on_existing="version"), b"new"))
    assert error.code == ErrorCode.ACCESS_VIOLATION
    assert file.read_bytes() == OLD
    assert (root / "sub/file.~1~").read_bytes() == OLD


@pytest.mark.parametrize("case", ["new name", "version", "not writable", "two names"])
def test_closed_directory_is_refused_at_once_unless_the_file_may_be_written(
    area: UploadArea, root: Path, file: Path, case: str
) -> None:
    terms = Terms(b"sub/new" if case == "new name" else b"sub/file", on_existing="replace")
    if case == "version":
        terms = Terms(b"sub/file", on_existing="version")
    if case == "not writable":
        file.chmod(0o444)
    if case == "two names":
        (root / "other").hardlink_to(file)
    with unprivileged(file.parent):
        error = refusal(lambda: area.begin(terms))
    assert error.code == ErrorCode.ACCESS_VIOLATION
    assert isinstance(error, UploadError)
    assert error.errno == errno.EACCES


def test_what_it_grew_by_is_accounted_for(root: Path, file: Path) -> None:
    area = UploadArea(root, max_total_bytes=1000)
    area.sweep()
    with unprivileged(file.parent):
        put(area, WRITABLE, bytes(500))
    assert area.space.used_bytes == 500
    area.close()
