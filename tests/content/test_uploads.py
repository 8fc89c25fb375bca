"""What an upload may do, what is seen of it, and what each refusal says."""

import errno
import os
import resource
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest
from msgspec import Struct
from tests.support.descriptors import descriptors_at_rest

from snow_owl_tftp.content.confine import KernelResolver, choose_resolver
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.content.store import leftovers, places, reception, staging
from snow_owl_tftp.content.store.uploads import OpenUpload, StoredFile, UploadArea, UploadError
from snow_owl_tftp.content.walk import WalkResolver
from snow_owl_tftp.errors import ConfigError, InternalError, RefusedError
from snow_owl_tftp.linux import unnamed
from snow_owl_tftp.protocol.constants import ErrorCode


class Terms(Struct, frozen=True):
    path: bytes
    on_existing: Literal["refuse", "replace", "version"] = "refuse"
    create_directories: bool = False
    file_mode_bits: int = 0o644
    fsync: bool = True


def names_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def no_unnamed_files(*_: object, **__: object) -> int:
    return -1


def resolvers() -> list[type[KernelResolver] | type[WalkResolver]]:
    fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    kernel = isinstance(choose_resolver(fd), KernelResolver)
    os.close(fd)
    return [KernelResolver, WalkResolver] if kernel else [WalkResolver]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    return root


@pytest.fixture(params=["unnamed", "hidden name", "hidden name, no renameat2"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way to hold a file that nobody may see yet."""
    if request.param != "unnamed":
        monkeypatch.setattr(staging, "open_unnamed", no_unnamed_files)
    if request.param.endswith("no renameat2"):
        monkeypatch.setattr(unnamed, "_renameat2", None)
    return str(request.param)


@pytest.fixture(params=resolvers())
def area(root: Path, request: pytest.FixtureRequest) -> Iterator[UploadArea]:
    before = descriptors_at_rest()
    area = UploadArea(root, make_resolver=request.param)
    yield area
    area.close()
    assert descriptors_at_rest() == before, "a descriptor leaked"


def opened(area: UploadArea, terms: Terms, announced_bytes: int | None = None, **more: Any) -> OpenUpload:
    """An upload whose first byte is here."""
    upload = area.begin(terms, announced_bytes, **more)
    upload.open()
    return upload


def receive(upload: OpenUpload, data: bytes) -> None:
    assert os.pwrite(upload.open(), data, 0) == len(data)


def put(area: UploadArea, terms: Terms, data: bytes, **more: Any) -> StoredFile:
    upload = opened(area, terms, **more)
    try:
        receive(upload, data)
        return upload.commit(len(data))
    finally:
        upload.close()


def refusal(act: Callable[[], object]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        act()
    assert len(caught.value.text) < 48
    assert "/" not in caught.value.text.replace("I/O", "")
    return caught.value


# ---- what is stored


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 300_000])
def test_file_holds_exactly_what_was_received(area: UploadArea, root: Path, size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    stored = put(area, Terms(b"sub/new"), data)
    assert (root / "sub/new").read_bytes() == data
    assert stored == StoredFile((root / "sub/new").resolve(), size, b"")
    assert names_below(root) == {"sub", "sub/new"}


@pytest.mark.usefixtures("way")
def test_nothing_is_visible_before_commit(area: UploadArea, root: Path) -> None:
    upload = opened(area, Terms(b"new"))
    receive(upload, b"half")
    assert {name for name in names_below(root) if not staging.is_staging_name(name.encode())} == {"sub"}
    upload.close()
    assert names_below(root) == {"sub"}


def test_unnamed_file_leaves_no_name_at_all(area: UploadArea, root: Path) -> None:
    upload = opened(area, Terms(b"new"))
    receive(upload, b"half")
    seen = names_below(root)
    upload.close()
    assert seen == {"sub"}, "this file system has no O_TMPFILE, or it is not used"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666])
def test_file_mode_does_not_depend_on_the_umask(area: UploadArea, root: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        put(area, Terms(b"new", file_mode_bits=mode), b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "new").stat().st_mode) == mode


@pytest.mark.usefixtures("way")
def test_reader_during_an_upload_gets_the_old_file(area: UploadArea, root: Path) -> None:
    (root / "file").write_bytes(b"old")
    with (root / "file").open("rb") as reader:
        upload = opened(area, Terms(b"file", on_existing="replace"))
        receive(upload, b"new content")
        assert (root / "file").read_bytes() == b"old"
        upload.commit(11)
        upload.close()
        assert reader.read() == b"old"
    assert (root / "file").read_bytes() == b"new content"


@pytest.mark.parametrize(
    ("wire", "stored"),
    [
        (b"", b""),
        (b"one\r\ntwo\r\0three", b"one\ntwo\rthree"),
        (b"a" * 262_143 + b"\r\n", b"a" * 262_143 + b"\n"),
        (b"a" * 262_143 + b"\r\0\n", b"a" * 262_143 + b"\r\n"),
        (b"lone \r", b"lone \r"),
    ],
)
@pytest.mark.usefixtures("way")
def test_netascii_is_stored_as_local_text(area: UploadArea, root: Path, wire: bytes, stored: bytes) -> None:
    result = put(area, Terms(b"text"), wire, is_netascii=True)
    assert (root / "text").read_bytes() == stored
    assert result.size_bytes == len(stored)
    assert names_below(root) == {"sub", "text"}


def test_netascii_upload_may_be_longer_than_its_tsize(area: UploadArea, root: Path) -> None:
    put(area, Terms(b"text"), b"one\r\ntwo\r\n", announced_bytes=8, is_netascii=True)
    assert (root / "text").read_bytes() == b"one\ntwo\n"


def test_tsize_zero_is_no_announcement(area: UploadArea, root: Path) -> None:
    put(area, Terms(b"new"), b"from a pipe", announced_bytes=0)
    assert (root / "new").read_bytes() == b"from a pipe"


@pytest.mark.parametrize("received", [b"", b"123456789", b"12345678901"])
def test_other_length_than_announced_is_no_success(area: UploadArea, root: Path, received: bytes) -> None:
    error = refusal(lambda: put(area, Terms(b"new"), received, announced_bytes=10))
    assert error.code == ErrorCode.NOT_DEFINED
    assert names_below(root) == {"sub"}


def test_file_shorter_than_what_was_received_is_no_success(area: UploadArea, root: Path) -> None:
    upload = opened(area, Terms(b"new"))
    receive(upload, b"abc")
    error = refusal(lambda: upload.commit(4))
    upload.close()
    assert isinstance(error, UploadError)
    assert error.errno == errno.EIO
    assert names_below(root) == {"sub"}


# ---- what exists already


@pytest.mark.usefixtures("way")
def test_existing_file_is_refused_at_once(area: UploadArea, root: Path) -> None:
    (root / "file").write_bytes(b"old")
    assert refusal(lambda: area.begin(Terms(b"file"))).code == ErrorCode.FILE_EXISTS
    assert (root / "file").read_bytes() == b"old"


@pytest.mark.usefixtures("way")
def test_two_uploads_of_a_new_name_first_commit_wins_and_both_are_told(area: UploadArea, root: Path) -> None:
    first, second = opened(area, Terms(b"name")), area.begin(Terms(b"name"))
    receive(first, b"first" * 9)
    receive(second, b"second")
    second.commit(6)
    assert refusal(lambda: first.commit(45)).code == ErrorCode.FILE_EXISTS
    first.close()
    second.close()
    assert (root / "name").read_bytes() == b"second"
    assert names_below(root) == {"sub", "name"}


@pytest.mark.usefixtures("way")
def test_name_taken_between_look_and_link_is_not_overwritten(
    area: UploadArea, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = opened(area, Terms(b"name"))
    receive(upload, b"ours")
    (root / "name").write_bytes(b"theirs")
    monkeypatch.setattr("snow_owl_tftp.content.store.publishing.look", lambda *_: None)
    assert refusal(lambda: upload.commit(4)).code == ErrorCode.FILE_EXISTS
    upload.close()
    assert (root / "name").read_bytes() == b"theirs"
    assert names_below(root) == {"sub", "name"}


@pytest.mark.usefixtures("way")
def test_two_uploads_that_replace_last_commit_wins(area: UploadArea, root: Path) -> None:
    terms = Terms(b"name", on_existing="replace")
    first, second = opened(area, terms), area.begin(terms)
    receive(first, b"first")
    receive(second, b"second")
    second.commit(6)
    first.commit(5)
    first.close()
    second.close()
    assert (root / "name").read_bytes() == b"first"
    assert names_below(root) == {"sub", "name"}


@pytest.mark.usefixtures("way")
def test_versions_are_numbered_upwards_and_never_lost(area: UploadArea, root: Path) -> None:
    terms = Terms(b"sub/a.cfg", on_existing="version")
    kept = [put(area, terms, text).kept_as for text in (b"one", b"two", b"three")]
    assert kept == [b"", b"a.cfg.~1~", b"a.cfg.~2~"]
    (root / "sub/a.cfg.~1~").unlink()
    assert put(area, terms, b"four").kept_as == b"a.cfg.~3~"
    found = {path.name: path.read_bytes() for path in (root / "sub").iterdir()}
    assert found == {"a.cfg": b"four", "a.cfg.~2~": b"two", "a.cfg.~3~": b"three"}


def test_versions_of_simultaneous_uploads_keep_every_one(area: UploadArea, root: Path) -> None:
    """Also: the name is never absent."""
    terms = Terms(b"log", on_existing="version", fsync=False)
    put(area, terms, b"start")
    absent, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not (root / "log").exists():
                absent.append(1)

    def write(number: int) -> None:
        for round_ in range(10):
            put(area, terms, b"%d:%d" % (number, round_))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    contents = sorted(path.read_bytes() for path in root.glob("log*"))
    assert contents == sorted([b"start", *(b"%d:%d" % (n, r) for n in range(8) for r in range(10))])
    assert not absent


@pytest.mark.parametrize("on_existing", ["refuse", "replace", "version"])
@pytest.mark.parametrize("kind", ["directory", "fifo", "link to a file", "dangling link"])
@pytest.mark.parametrize("when", ["before begin", "before commit"])
def test_what_is_no_file_is_never_replaced(
    area: UploadArea, root: Path, on_existing: Literal["refuse", "replace", "version"], kind: str, when: str
) -> None:
    (root / "other").write_bytes(b"other")
    path = root / "name"

    def make() -> None:
        if kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("other" if kind == "link to a file" else "nowhere")

    terms = Terms(b"name", on_existing=on_existing)
    if when == "before begin":
        make()
        error = refusal(lambda: area.begin(terms))
    else:
        upload = opened(area, terms)
        make()
        error = refusal(lambda: upload.commit(0))
        upload.close()
    assert error.code == ErrorCode.ACCESS_VIOLATION
    assert not stat.S_ISREG(path.lstat().st_mode)
    assert names_below(root) == {"sub", "other", "name"}
    assert (root / "other").read_bytes() == b"other"


# ---- directories


@pytest.mark.parametrize("path", [b"no/such", b"sub/no/such"])
def test_missing_directory_is_error_1(area: UploadArea, path: bytes) -> None:
    assert refusal(lambda: area.begin(Terms(path))).code == ErrorCode.FILE_NOT_FOUND


def test_file_where_a_directory_should_be_is_error_1(area: UploadArea, root: Path) -> None:
    (root / "file").write_bytes(b"")
    error = refusal(lambda: area.begin(Terms(b"file/new", create_directories=True)))
    assert error.code == ErrorCode.FILE_NOT_FOUND


@pytest.mark.usefixtures("way")
def test_directories_are_made_by_commit_and_not_before(area: UploadArea, root: Path) -> None:
    upload = opened(area, Terms(b"a/b/c/new", create_directories=True))
    assert not (root / "a").exists()
    receive(upload, b"x")
    upload.commit(1)
    upload.close()
    assert names_below(root) == {"sub", "a", "a/b", "a/b/c", "a/b/c/new"}


@pytest.mark.parametrize(("file_mode", "directory_mode"), [(0o644, 0o755), (0o640, 0o750), (0o600, 0o700)])
def test_whoever_may_read_the_file_may_enter_its_directory(
    area: UploadArea, root: Path, file_mode: int, directory_mode: int
) -> None:
    put(area, Terms(b"a/new", create_directories=True, file_mode_bits=file_mode), b"")
    assert stat.S_IMODE((root / "a").stat().st_mode) == directory_mode


def test_made_directory_inherits_the_group_bit(area: UploadArea, root: Path) -> None:
    (root / "sub").chmod(0o2775)
    put(area, Terms(b"sub/a/new", create_directories=True), b"")
    assert (root / "sub/a").stat().st_mode & stat.S_ISGID


@pytest.mark.usefixtures("way")
def test_directory_made_by_another_upload_meanwhile_is_used(area: UploadArea, root: Path) -> None:
    uploads = [opened(area, Terms(b"a/b/%d" % n, create_directories=True)) for n in range(2)]
    for upload in uploads:
        upload.commit(0)
        upload.close()
    assert {"a/b/0", "a/b/1"} <= names_below(root)


@pytest.mark.usefixtures("way")
def test_directory_removed_meanwhile_is_told_and_leaves_nothing(area: UploadArea, root: Path) -> None:
    upload = opened(area, Terms(b"sub/new"))
    receive(upload, b"abc")
    for path in (root / "sub").iterdir():
        path.unlink()
    (root / "sub").rmdir()
    error = refusal(lambda: upload.commit(3))
    upload.close()
    assert error.code == ErrorCode.FILE_NOT_FOUND
    assert isinstance(error, UploadError)
    assert error.errno == errno.ENOENT
    assert names_below(root) == set()


def test_directory_removed_meanwhile_is_made_anew_where_that_is_allowed(area: UploadArea, root: Path) -> None:
    upload = opened(area, Terms(b"sub/new", create_directories=True))
    receive(upload, b"abc")
    (root / "sub").rmdir()
    upload.commit(3)
    upload.close()
    assert (root / "sub/new").read_bytes() == b"abc"


@pytest.mark.usefixtures("way")
def test_directory_moved_out_of_the_root_takes_no_upload_along(area: UploadArea, root: Path, tmp_path: Path) -> None:
    upload = opened(area, Terms(b"sub/new"))
    receive(upload, b"abc")
    (root / "sub").rename(tmp_path / "elsewhere")
    (root / "sub").mkdir()
    upload.commit(3)
    upload.close()
    assert (root / "sub/new").read_bytes() == b"abc"
    assert list((tmp_path / "elsewhere").iterdir()) == []


# ---- confinement and names


@pytest.mark.parametrize("path", [b"../new", b"sub/../../new", b"sub/..", b"..", b"."])
def test_path_out_of_the_root_is_refused(area: UploadArea, tmp_path: Path, path: bytes) -> None:
    with pytest.raises(OutsideRootError) as caught:
        area.begin(Terms(path, create_directories=True))
    assert not caught.value.by_link
    assert {entry.name for entry in tmp_path.iterdir()} == {"root"}


@pytest.mark.parametrize("target", ["..", "/tmp", "out"])
def test_link_out_of_the_root_is_refused(area: UploadArea, root: Path, target: str) -> None:
    (root / "out").symlink_to(target)
    with pytest.raises(OutsideRootError) as caught:
        area.begin(Terms(b"out/new", create_directories=True))
    assert caught.value.by_link


def test_link_to_a_directory_below_the_root_is_followed(area: UploadArea, root: Path) -> None:
    (root / "alias").symlink_to("sub")
    stored = put(area, Terms(b"alias/new"), b"x")
    assert (root / "sub/new").read_bytes() == b"x"
    assert stored.real_path == (root / "sub/new").resolve()


def test_absolute_link_to_a_directory_below_the_root_is_followed(area: UploadArea, root: Path) -> None:
    (root / "alias").symlink_to(root / "sub")
    stored = put(area, Terms(b"alias/new"), b"x")
    assert stored.real_path == (root / "sub/new").resolve()
    assert (root / "sub/new").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"sub/a.cfg", "File exists (EEXIST)"),
        (b"out/new", "the link out -> /tmp leads out of the root (EXDEV)"),
        (b"sub/a.cfg/new", "sub/a.cfg: Not a directory (ENOTDIR)"),
        (b"sub/" + b"n" * 256, "sub/" + "n" * 256 + ": File name too long (ENAMETOOLONG)"),
    ],
)
def test_refusal_says_to_the_operator_what_stands_in_the_way(
    area: UploadArea, root: Path, path: bytes, why: str
) -> None:
    (root / "out").symlink_to("/tmp")
    (root / "sub/a.cfg").write_bytes(b"")
    assert refusal(lambda: area.begin(Terms(path))).why == why


def test_refusal_names_the_directory_that_may_not_be_written_to(
    area: UploadArea, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(reception, "StagedFile", deny)
    upload = area.begin(Terms(b"sub/new"))
    assert refusal(upload.open).why == "sub/new: Permission denied (EACCES)"


def test_name_of_a_leftover_is_refused(area: UploadArea) -> None:
    error = refusal(lambda: area.begin(Terms(b"sub/.snow-owl-0123456789abcdef.part")))
    assert error.code == ErrorCode.ACCESS_VIOLATION


def test_name_longer_than_the_file_system_takes_is_refused_at_once(area: UploadArea) -> None:
    assert refusal(lambda: area.begin(Terms(b"n" * 256))).code == ErrorCode.ACCESS_VIOLATION


def test_root_that_is_none_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="root_dir"):
        UploadArea(tmp_path / "absent")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_directory_without_write_permission_is_error_2(area: UploadArea, root: Path) -> None:
    os.setegid(65534)
    os.seteuid(65534)
    try:
        error = refusal(lambda: area.begin(Terms(b"sub/new")))
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert error.code == ErrorCode.ACCESS_VIOLATION


# ---- limits


def test_tsize_beyond_the_limit_is_refused_at_once(root: Path) -> None:
    area = UploadArea(root, max_file_size_bytes=10)
    assert refusal(lambda: area.begin(Terms(b"new"), 11)).code == ErrorCode.DISK_FULL
    upload = opened(area, Terms(b"new"), 10)
    assert (upload.limit_bytes, upload.announced_bytes) == (10, 10)
    upload.close()
    area.close()


def test_tsize_beyond_the_disk_is_refused_at_once(area: UploadArea) -> None:
    error = refusal(lambda: area.begin(Terms(b"new"), 2**62))
    assert error.code == ErrorCode.DISK_FULL
    assert isinstance(error, UploadError)
    assert error.errno == errno.ENOSPC


@pytest.mark.usefixtures("way")
def test_write_beyond_a_file_size_limit_of_the_process_is_error_3(area: UploadArea, root: Path) -> None:
    """EFBIG at commit: netascii text is written then."""
    upload = opened(area, Terms(b"new"), is_netascii=True)
    receive(upload, b"x" * 5000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        error = refusal(lambda: upload.commit(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        upload.close()
    assert error.code == ErrorCode.DISK_FULL
    assert names_below(root) == {"sub"}


# ---- small disks


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """64 KiB mounted at sub."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root / "sub")], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("CANNOT MOUNT a tmpfs: what a full disk does is NOT tested on this machine")
    yield root / "sub"
    subprocess.run(["umount", "-l", str(root / "sub")], check=True)


@pytest.mark.usefixtures("way")
def test_tsize_beyond_a_small_disk_is_refused_at_once(area: UploadArea, small_disk: Path) -> None:
    assert refusal(lambda: area.begin(Terms(b"sub/new"), 65_537)).code == ErrorCode.DISK_FULL
    assert list(small_disk.iterdir()) == []


@pytest.mark.usefixtures("way")
def test_disk_full_while_writing_leaves_nothing(area: UploadArea, small_disk: Path) -> None:
    upload = opened(area, Terms(b"sub/new"))
    os.pwrite(upload.fd, bytes(65_536), 0)
    with pytest.raises(OSError, match="No space"):
        os.pwrite(upload.fd, bytes(4096), 65_536)
    upload.close()
    assert list(small_disk.iterdir()) == []
    assert os.statvfs(small_disk).f_bfree == os.statvfs(small_disk).f_blocks, "what was written is not given back"


@pytest.mark.usefixtures("way")
def test_disk_full_at_commit_is_error_3_and_keeps_the_old_file(area: UploadArea, small_disk: Path) -> None:
    (small_disk / "file").write_bytes(b"old")
    upload = opened(area, Terms(b"sub/file", on_existing="replace"), is_netascii=True)
    receive(upload, b"x" * 40_000)
    error = refusal(lambda: upload.commit(40_000))
    upload.close()
    assert error.code == ErrorCode.DISK_FULL
    assert isinstance(error, UploadError)
    assert error.errno == errno.ENOSPC
    assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == {"file": b"old"}


@pytest.mark.usefixtures("way")
def test_other_file_system_mounted_meanwhile_is_told(root: Path) -> None:
    area = UploadArea(root)
    upload = opened(area, Terms(b"sub/new"))
    receive(upload, b"abc")
    command = ["mount", "-t", "tmpfs", "tmpfs", str(root / "sub")]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        upload.close()
        pytest.skip("CANNOT MOUNT a tmpfs: EXDEV is NOT tested on this machine")
    try:
        error = refusal(lambda: upload.commit(3))
        assert isinstance(error, UploadError)
        assert error.errno == errno.EXDEV
        assert list((root / "sub").iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(root / "sub")], check=True)
    upload.close()
    area.close()
    assert list((root / "sub").iterdir()) == []


# ---- every call may fail


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("error_number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fchmod", "fsync", "rename", "link"])
@pytest.mark.parametrize("on_existing", ["replace", "version"])
def test_failing_call_is_told_and_keeps_the_old_file(
    area: UploadArea,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error_number: int,
    on_existing: Literal["replace", "version"],
    way: str,
) -> None:
    if way != "unnamed" and on_existing == "replace" and call == "link":
        call = "rename"  # a hidden name is renamed, never linked

    def fail(*_: object, **__: object) -> None:
        raise OSError(error_number, os.strerror(error_number))

    (root / "file").write_bytes(b"old")
    upload = opened(area, Terms(b"file", on_existing=on_existing))
    receive(upload, b"new")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        error = refusal(lambda: upload.commit(3))
    upload.close()
    assert isinstance(error, UploadError)
    assert error.errno == error_number
    assert error.code == (ErrorCode.NOT_DEFINED if error_number == errno.EIO else ErrorCode.DISK_FULL)
    assert (root / "file").read_bytes() == b"old"
    assert names_below(root) - {"file.~1~"} == {"sub", "file"}


def test_without_fsync_nothing_is_synced(area: UploadArea, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    put(area, Terms(b"a/b", create_directories=True, fsync=False), b"x")
    assert synced == []
    put(area, Terms(b"c/d", create_directories=True), b"x")
    assert len(synced) == 3, "the file, the directory, and the root that got the directory"


def test_file_system_without_directory_fsync_is_accepted(
    area: UploadArea, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no such thing here")
        real_fsync(fd)

    monkeypatch.setattr(places.os, "fsync", fsync)
    put(area, Terms(b"new"), b"x")
    assert (root / "new").read_bytes() == b"x"


# ---- ends


def test_upload_ends_once(area: UploadArea) -> None:
    upload = opened(area, Terms(b"new"))
    upload.commit(0)
    with pytest.raises(InternalError):
        upload.commit(0)
    upload.close()
    upload.close()
    with pytest.raises(InternalError):
        upload.commit(0)


def test_commit_behind_a_close_is_no_bug_but_an_aborted_upload(area: UploadArea, root: Path) -> None:
    """The client goes away while the commit waits for a thread: close may be first."""
    upload = area.begin(Terms(b"new"))
    upload.close()
    error = refusal(lambda: upload.commit(0))
    assert (error.code, error.text) == (ErrorCode.NOT_DEFINED, "Upload was aborted")
    assert names_below(root) == {"sub"}


def test_closing_after_commit_keeps_the_file_and_the_descriptor_until_then(area: UploadArea, root: Path) -> None:
    upload = opened(area, Terms(b"new"))
    upload.commit(0)
    os.fstat(upload.fd)
    upload.close()
    assert (root / "new").exists()


def test_close_during_commit_gives_the_upload_up(area: UploadArea, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client was told meanwhile that it failed, so it must not appear."""
    in_fsync, may_go_on = threading.Event(), threading.Event()

    def slow_fsync(_: int) -> None:
        in_fsync.set()
        assert may_go_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    upload = opened(area, Terms(b"new"))
    errors: list[RefusedError] = []
    committing = threading.Thread(target=lambda: errors.append(refusal(lambda: upload.commit(0))))
    committing.start()
    assert in_fsync.wait(10)
    closing = threading.Thread(target=upload.close)
    closing.start()
    while not upload._is_abandoned:
        pass
    may_go_on.set()
    committing.join()
    closing.join()
    assert errors[0].code == ErrorCode.NOT_DEFINED
    assert names_below(root) == {"sub"}


# ---- sweep

LEFTOVER = ".snow-owl-0123456789abcdef.part"


def test_sweep_removes_leftovers_and_nothing_else(area: UploadArea, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / LEFTOVER).write_bytes(b"")
    (root / "linked").symlink_to("../outside")
    (root / LEFTOVER).write_bytes(b"half")
    (root / "sub" / LEFTOVER).write_bytes(b"half")
    (root / "sub" / LEFTOVER).chmod(0o200)
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/er" / LEFTOVER).mkdir()
    (root / "deep" / LEFTOVER).symlink_to("../kept")
    kept = [".snow-owl-0123456789abcdeg.part", ".snow-owl-0123456789abcdef.part~", "a.snow-owl-0123456789abcdef.part"]
    for name in [*kept, "kept", ".snow-owl-.part", ".snow-owl-0123456789abcde.part"]:
        (root / name).write_bytes(b"")
    before = names_below(root)
    assert area.sweep().removed_files == 2
    assert names_below(root) == before - {LEFTOVER, f"sub/{LEFTOVER}"}
    assert (tmp_path / "outside" / LEFTOVER).exists()


def test_sweep_spares_an_upload_that_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "open_unnamed", no_unnamed_files)
    area, other_server = UploadArea(root), UploadArea(root)
    upload = opened(area, Terms(b"new"))
    receive(upload, b"abc")
    assert other_server.sweep().removed_files == 0
    upload.commit(3)
    upload.close()
    assert (root / "new").read_bytes() == b"abc"
    area.close()
    other_server.close()


@pytest.mark.parametrize("bound", ["MAX_ENTRIES", "MAX_DEPTH"])
def test_sweep_is_bounded_and_says_so(
    area: UploadArea, root: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    (root / "a/b/c/d").mkdir(parents=True)
    assert area.sweep().is_complete
    monkeypatch.setattr(leftovers, bound, 3)
    assert not area.sweep().is_complete
