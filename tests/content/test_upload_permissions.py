"""Owner, group, mode, ACL and attributes of what is stored: of the file it replaces, or as its directory has it."""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.content.test_uploads import Terms, put, receive, refusal

from snow_owl_tftp.content.store import permissions, publishing
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.protocol.constants import ErrorCode

REPLACE = Terms(b"file", on_existing="replace")
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 16, 32
NOBODY, SOMEBODY = 65534, 1525


def acl(*entries: tuple[int, int]) -> bytes:
    """An ACL as the kernel takes it; a named user is always the same."""
    ids = {USER: SOMEBODY}
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, ids.get(tag, 0xFFFFFFFF)) for tag, bits in entries
    )


def entries_of(path: Path) -> dict[int, int]:
    return {tag: bits for tag, bits, _ in struct.iter_unpack("<HHI", os.getxattr(path, ACCESS)[4:])}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def area(root: Path) -> Iterator[UploadArea]:
    area = UploadArea(root)
    yield area
    area.close()


@pytest.fixture
def old(root: Path) -> Path:
    path = root / "file"
    path.write_bytes(b"old")
    return path


def set_or_skip(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"CANNOT SET {name} here ({error.strerror}): that uploads keep it is NOT tested")


def be_root_or_skip() -> None:
    if os.geteuid():
        pytest.skip("NOT ROOT: that uploads keep the owner is NOT tested")


# ---- a file that replaces another


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444, 0o4755, 0o2775])
@pytest.mark.parametrize("on_existing", ["replace", "version"])
def test_replaced_file_keeps_its_mode_but_for_set_id_bits(
    area: UploadArea, old: Path, mode: int, on_existing: Any
) -> None:
    old.chmod(mode)
    put(area, Terms(b"file", on_existing=on_existing), b"new")
    assert old.read_bytes() == b"new"
    assert stat.S_IMODE(old.stat().st_mode) == mode & 0o777


def test_replaced_file_keeps_owner_and_group(area: UploadArea, old: Path) -> None:
    be_root_or_skip()
    old.chmod(0o660)
    os.chown(old, NOBODY, SOMEBODY)
    put(area, REPLACE, b"new")
    status = old.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY, SOMEBODY, 0o660)


def test_netascii_keeps_them_too(area: UploadArea, old: Path) -> None:
    old.chmod(0o606)
    put(area, REPLACE, b"new\r\n", is_netascii=True)
    assert (old.read_bytes(), old.stat().st_mode & 0o777) == (b"new\n", 0o606)


def test_group_that_cannot_be_kept_gives_its_successor_what_others_have(
    area: UploadArea, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_root_or_skip()
    old.chmod(0o664)
    os.chown(old, NOBODY, SOMEBODY)

    def deny(*_: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", deny)
    put(area, REPLACE, b"new")
    assert old.read_bytes() == b"new"
    assert old.stat().st_mode & 0o777 == 0o644


def test_owner_that_cannot_be_kept_leaves_the_group_kept(
    area: UploadArea, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_root_or_skip()
    old.chmod(0o664)
    os.chown(old, NOBODY, SOMEBODY)
    real_fchown = os.fchown

    def deny_owner(fd: int, uid: int, gid: int) -> None:
        if uid != -1:
            raise PermissionError(errno.EPERM, "no")
        real_fchown(fd, uid, gid)

    monkeypatch.setattr(os, "fchown", deny_owner)
    put(area, REPLACE, b"new")
    assert (old.stat().st_gid, old.stat().st_mode & 0o777) == (SOMEBODY, 0o664)


@pytest.mark.parametrize("is_group_kept", [True, False])
def test_replaced_file_keeps_its_acl(
    area: UploadArea, old: Path, monkeypatch: pytest.MonkeyPatch, is_group_kept: bool
) -> None:
    set_or_skip(old, ACCESS, acl((USER_OBJ, 6), (USER, 6), (GROUP_OBJ, 6), (MASK, 6), (OTHER, 0)))
    monkeypatch.setattr(permissions, "_give_away", lambda *_: is_group_kept)
    put(area, REPLACE, b"new")
    assert old.read_bytes() == b"new"
    kept = {USER_OBJ: 6, USER: 6, GROUP_OBJ: 6 if is_group_kept else 0, MASK: 6, OTHER: 0}
    assert entries_of(old) == kept


def test_acl_that_cannot_be_kept_grants_its_mask_to_nobody(
    area: UploadArea, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_or_skip(old, ACCESS, acl((USER_OBJ, 6), (USER, 6), (GROUP_OBJ, 0), (MASK, 6), (OTHER, 0)))

    def deny(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "setxattr", deny)
    put(area, REPLACE, b"new")
    assert old.stat().st_mode & 0o777 == 0o600


def test_replaced_file_without_acl_gets_none_from_its_directory(area: UploadArea, root: Path, old: Path) -> None:
    old.chmod(0o640)
    set_or_skip(root, DEFAULT, acl((USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 7), (MASK, 7), (OTHER, 7)))
    put(area, REPLACE, b"new")
    assert old.stat().st_mode & 0o777 == 0o640
    with pytest.raises(OSError, match="No data"):
        os.getxattr(old, ACCESS)


def test_replaced_file_keeps_its_attributes(area: UploadArea, old: Path) -> None:
    set_or_skip(old, "user.origin", b"switch 7")
    old.chmod(0o444)
    put(area, REPLACE, b"new")
    assert os.getxattr(old, "user.origin") == b"switch 7"


def test_replaced_file_keeps_its_selinux_label(area: UploadArea, old: Path) -> None:
    """Without SELinux the kernel keeps a label like any other attribute, where the process is root."""
    set_or_skip(old, "security.selinux", b"system_u:object_r:tftpdir_rw_t:s0\0")
    put(area, REPLACE, b"new")
    assert os.getxattr(old, "security.selinux") == b"system_u:object_r:tftpdir_rw_t:s0\0"


def test_attribute_that_may_not_be_set_fails_no_upload(
    area: UploadArea, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_or_skip(old, "user.origin", b"switch 7")

    def deny(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "setxattr", deny)
    put(area, REPLACE, b"new")
    assert old.read_bytes() == b"new"


def test_permissions_given_while_the_upload_is_synced_count(
    area: UploadArea, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator who withdraws a file must not find it readable again."""
    real_fsync, calls = os.fsync, []

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            old.chmod(0o600)
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    put(area, REPLACE, b"new")
    assert (old.read_bytes(), old.stat().st_mode & 0o777) == (b"new", 0o600)


@pytest.mark.parametrize("changes", [1, publishing._MAX_LOOKS - 1, publishing._MAX_LOOKS])
def test_file_that_does_not_come_to_rest_is_given_up(
    area: UploadArea, old: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    modes = iter(range(0o601, 0o601 + changes))
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        if (mode := next(modes, None)) is not None:
            old.chmod(mode)
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    if changes < publishing._MAX_LOOKS:
        put(area, REPLACE, b"new")
        assert (old.read_bytes(), old.stat().st_mode & 0o777) == (b"new", 0o600 + changes)
    else:
        assert refusal(lambda: put(area, REPLACE, b"new")).code == ErrorCode.NOT_DEFINED
        assert old.read_bytes() == b"old"


# ---- a new file


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o666])
@pytest.mark.parametrize(
    "default",
    [
        acl((USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 5)),
        acl((USER_OBJ, 6), (USER, 4), (GROUP_OBJ, 0), (MASK, 4), (OTHER, 0)),
        acl((USER_OBJ, 7), (GROUP_OBJ, 0), (OTHER, 0)),
    ],
    ids=["wide", "narrow", "minimal"],
)
def test_new_file_in_a_directory_with_a_default_acl_is_as_the_kernel_makes_it(
    area: UploadArea, root: Path, mode: int, default: bytes
) -> None:
    set_or_skip(root, DEFAULT, default)
    put(area, Terms(b"file", file_mode_bits=mode), b"new")
    asked = 0o666 if mode == 0o644 else mode  # 0644 stands for the usual umask, which does not count here
    os.close(os.open(root / "kernel", os.O_CREAT | os.O_WRONLY, asked))
    ours, theirs = ((root / name) for name in ("file", "kernel"))
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(theirs.stat().st_mode)
    if ACCESS in os.listxattr(theirs):
        assert entries_of(ours) == entries_of(theirs)
    else:
        assert ACCESS not in os.listxattr(ours)


def test_made_directories_hand_the_default_acl_down(area: UploadArea, root: Path) -> None:
    default = acl((USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 0))
    set_or_skip(root, DEFAULT, default)
    put(area, Terms(b"a/b/file", create_directories=True), b"new")
    assert os.getxattr(root / "a/b", DEFAULT) == default
    for name in ("a", "a/b"):
        assert entries_of(root / name) == {USER_OBJ: 7, USER: 7, GROUP_OBJ: 5, MASK: 7, OTHER: 0}
    assert entries_of(root / "a/b/file") == {USER_OBJ: 6, USER: 7, GROUP_OBJ: 5, MASK: 6, OTHER: 0}


def test_acl_of_the_directory_where_it_was_received_does_not_stay(area: UploadArea, root: Path) -> None:
    """The directory is made, or moved into its place, only while the file is on its way."""
    set_or_skip(root, DEFAULT, acl((USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 7), (MASK, 7), (OTHER, 7)))
    upload = area.begin(Terms(b"sub/file", create_directories=True))
    receive(upload, b"new")
    (root / "sub").mkdir()
    os.removexattr(root / "sub", DEFAULT)
    upload.commit(3)
    upload.close()
    assert (root / "sub/file").stat().st_mode & 0o777 == 0o644
    assert ACCESS not in os.listxattr(root / "sub/file")


# ---- only what was made ready for writing


def test_replace_writable_takes_what_everybody_may_write_and_nothing_else(area: UploadArea, root: Path) -> None:
    (root / "ready").write_bytes(b"")
    (root / "ready").chmod(0o666)
    (root / "locked").write_bytes(b"keep")
    (root / "locked").chmod(0o664)
    terms = [Terms(name, on_existing="replace_writable", create_directories=True) for name in (b"ready", b"locked")]
    for content in (b"one", b"two"):
        put(area, terms[0], content)
        assert (root / "ready").read_bytes() == content
        assert (root / "ready").stat().st_mode & 0o777 == 0o666
    error = refusal(lambda: area.begin(terms[1]))
    assert (error.code, error.text) == (ErrorCode.ACCESS_VIOLATION, "File is not writable for everybody")
    for name in (b"missing", b"sub/missing"):
        missing = Terms(name, on_existing="replace_writable", create_directories=True)
        assert refusal(lambda missing=missing: area.begin(missing)).code == ErrorCode.FILE_NOT_FOUND
    assert sorted(path.name for path in root.iterdir()) == ["locked", "ready"]
    assert (root / "locked").read_bytes() == b"keep"


def test_refuse_fills_an_empty_file_that_everybody_may_write_once(area: UploadArea, old: Path) -> None:
    refused = ((b"", 0o644), (b"old", 0o666))
    for content, mode in refused:
        old.write_bytes(content)
        old.chmod(mode)
        assert refusal(lambda: area.begin(Terms(b"file"))).code == ErrorCode.FILE_EXISTS
    old.write_bytes(b"")
    both = [area.begin(Terms(b"file")) for _ in range(2)]
    for upload in both:
        receive(upload, b"new")
    both[0].commit(3)
    assert refusal(lambda: both[1].commit(3)).code == ErrorCode.FILE_EXISTS
    for upload in both:
        upload.close()
    assert (old.read_bytes(), old.stat().st_mode & 0o777) == (b"new", 0o666)


@pytest.mark.parametrize("withdrawn_by", ["chmod", "unlink"])
def test_permission_withdrawn_while_the_upload_runs_counts(area: UploadArea, old: Path, withdrawn_by: str) -> None:
    old.chmod(0o666)
    upload = area.begin(Terms(b"file", on_existing="replace_writable"))
    receive(upload, b"new")
    if withdrawn_by == "chmod":
        old.chmod(0o644)
    else:
        old.unlink()
    code = refusal(lambda: upload.commit(3)).code
    upload.close()
    assert code == (ErrorCode.ACCESS_VIOLATION if withdrawn_by == "chmod" else ErrorCode.FILE_NOT_FOUND)
    assert not old.exists() or old.read_bytes() == b"old"
