"""Which files can be read below a root, and that none can be outside: the same answers both ways."""

import errno
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.descriptors import descriptors_at_rest

from snow_owl_tftp.content import confine
from snow_owl_tftp.content.confine import KernelResolver, Resolver, choose_resolver
from snow_owl_tftp.content.files import FileTree, OpenFile
from snow_owl_tftp.content.names import spellings_of
from snow_owl_tftp.content.refusals import FileTooLargeError, OutsideRootError
from snow_owl_tftp.content.source import LATER, NotHere
from snow_owl_tftp.content.walk import Place, WalkResolver
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.linux import file_systems
from snow_owl_tftp.policy.decision import ReadDecision
from snow_owl_tftp.protocol.constants import ErrorCode

MakeResolver = Callable[[int, Sequence[Place]], Resolver]

SECRET = b"outside"
TMPFS_MAGIC = 0x01021994
UNPRIVILEGED_ID = 65534
"""nobody; any id that owns nothing will do."""


def kernel_has_openat2() -> bool:
    fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        return isinstance(choose_resolver(fd), KernelResolver)
    finally:
        os.close(fd)


def named(name: str) -> ReadDecision:
    return ReadDecision(spellings_of(name))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a secret beside it."""
    root = tmp_path / "root"
    (root / "sub/deep").mkdir(parents=True)
    (root / "file").write_bytes(b"top")
    (root / "empty").write_bytes(b"")
    (root / "sub/file").write_bytes(b"inner file")
    (tmp_path / "secret").write_bytes(SECRET)
    return root


@pytest.fixture(params=[KernelResolver, WalkResolver])
def make_resolver(request: pytest.FixtureRequest) -> MakeResolver:
    if request.param is KernelResolver and not kernel_has_openat2():
        pytest.skip("this kernel has no openat2, or a filter hides it")
    chosen: MakeResolver = request.param
    return chosen


@pytest.fixture
def tree(root: Path, make_resolver: MakeResolver) -> Iterator[FileTree]:
    before = descriptors_at_rest()
    tree = FileTree(root, make_resolver=make_resolver)
    yield tree
    tree.close()
    assert descriptors_at_rest() == before, "a descriptor leaked"


def read(tree: FileTree, name: str) -> bytes:
    file = tree.open_for_reading(name)
    try:
        content = os.pread(file.fd, 1 << 20, 0)
        assert file.size_bytes == len(content)
        return content
    finally:
        file.close()


def refused(tree: FileTree, name: str) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        tree.open_for_reading(name)
    assert len(caught.value.text) < 40
    assert "/" not in caught.value.text.replace("I/O", "")
    return caught.value


# ---- what can be read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("file", b"top"),
        ("empty", b""),
        ("sub/file", b"inner file"),
        ("/file", b"top"),
        ("//sub///file", b"inner file"),
        ("\\sub\\file", b"inner file"),
        ("./sub/./file", b"inner file"),
        ("sub/../file", b"top"),
        ("sub/deep/../../file", b"top"),
        ("sub/../sub/../sub/file", b"inner file"),
    ],
)
def test_file_is_read_however_the_name_is_spelled(tree: FileTree, name: str, content: bytes) -> None:
    assert read(tree, name) == content


@pytest.mark.parametrize(
    ("link", "target", "name"),
    [
        ("link", "file", "link"),
        ("link", "sub/file", "link"),
        ("link", "sub", "link/file"),
        ("link", "sub/deep", "link/../file"),
        ("link", "sub//./deep/..", "link/file"),
        ("sub/link", "../file", "sub/link"),
        ("sub/deep/link", "../../sub", "sub/deep/link/file"),
        ("link", ".", "link/link/link/file"),
    ],
)
def test_link_inside_the_root_is_followed(tree: FileTree, root: Path, link: str, target: str, name: str) -> None:
    (root / link).symlink_to(target)
    (root / "sub/deep/file").write_bytes(b"not this one")
    assert read(tree, name) in (b"top", b"inner file")


def test_chain_of_forty_links_is_followed_and_no_longer_one(tree: FileTree, root: Path) -> None:
    (root / "link0").symlink_to("file")
    for number in range(1, 41):
        (root / f"link{number}").symlink_to(f"link{number - 1}")
    assert read(tree, "link39") == b"top"
    assert refused(tree, "link40").code == ErrorCode.ACCESS_VIOLATION


def test_open_file_says_what_it_is(tree: FileTree, root: Path) -> None:
    file = tree.open_for_reading("/sub//file")
    status = (root / "sub/file").stat()
    assert file.relative_path == b"sub/file"
    assert (file.size_bytes, file.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (file.inode, file.device) == (status.st_ino, status.st_dev)
    assert not os.get_inheritable(file.fd)
    file.close()
    file.close()
    assert file.fd == -1


# ---- names are bytes


@pytest.mark.parametrize(
    "name", [b"caf\xe9.cfg", b"netboot.xyz.efi\xff", b"a\xffb", b"file\r\n", b"sub/x\xfe", b"\xff"]
)
def test_name_as_sent_is_looked_up_byte_by_byte(tree: FileTree, root: Path, name: bytes) -> None:
    (root / "netboot.xyz.efi").write_bytes(b"not this one")
    (root / os.fsdecode(name)).write_bytes(b"this one")
    assert read(tree, os.fsdecode(name)) == b"this one"


@pytest.mark.parametrize(
    "name",
    [b"sub/file\xff", b"sub/file\xff\x06\x04/x", b"sub/file\r\n", b"sub/file\x01 \x7f", b"\\sub\\file\n\xff\xff"],
)
def test_what_firmware_hangs_behind_a_name_is_ignored_where_no_file_has_it(
    tree: FileTree, root: Path, name: bytes
) -> None:
    assert read(tree, os.fsdecode(name)) == b"inner file"
    file = tree.open_for_reading(os.fsdecode(name))
    file.close()
    assert (file.relative_path, file.is_as_sent) == (b"sub/file", False)


def test_name_that_is_missing_with_and_without_its_end_is_not_found(tree: FileTree) -> None:
    assert refused(tree, "missing\udcff").code == ErrorCode.FILE_NOT_FOUND


def test_size_beyond_four_gib_is_exact(tree: FileTree, root: Path) -> None:
    os.truncate(root / "file", 5 * 1024**3 + 1)
    file = tree.open_for_reading("file")
    file.close()
    assert file.size_bytes == 5 * 1024**3 + 1


def test_root_that_is_renamed_and_replaced_still_serves_the_old_one(tree: FileTree, root: Path) -> None:
    root.rename(root.with_name("moved"))
    root.mkdir()
    (root / "file").write_bytes(b"new")
    assert read(tree, "file") == b"top"


# ---- what cannot


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "sub/missing",
        "missing/file",
        "file/x",
        "file/..",
        "file/../file",
        "FILE",
        "Sub/file",
        "a" * 300,
        "sub/" + "b" * 300 + "/file",
        "/".join(["sub"] * 250),
    ],
)
def test_missing_file_is_not_found(tree: FileTree, name: str) -> None:
    error = refused(tree, name)
    assert (error.code, error.text) == (ErrorCode.FILE_NOT_FOUND, "File not found")


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../secret",
        "/../secret",
        "sub/../../secret",
        "sub/../../root/file",
        "..\\secret",
        "./../secret",
        "sub/deep/../../../secret",
        "../" * 40 + "etc/passwd",
    ],
)
def test_name_that_leaves_the_root_is_refused(tree: FileTree, name: str) -> None:
    error = refused(tree, name)
    assert isinstance(error, OutsideRootError)
    assert error.code == ErrorCode.ACCESS_VIOLATION
    assert not error.by_link


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("link", "../secret"),
        ("link", ".."),
        ("link", "sub/../../secret"),
        ("sub/link", "../../secret"),
        ("sub/link", "deep/../../.."),
        ("link", "{root}/../secret"),
        ("link", "{root}/sub/../../secret"),
        ("link", "{root}2/file"),
        ("link", "{root}/.."),
        ("link", "../root/sub/../../secret"),
        ("sub/link", "/etc/passwd"),
        ("link", "/"),
    ],
)
def test_link_that_leaves_the_root_is_refused(tree: FileTree, root: Path, link: str, target: str) -> None:
    (root / link).symlink_to(target.format(root=root))
    for name in (link, f"{link}/file"):
        error = refused(tree, name)
        assert isinstance(error, OutsideRootError)
        assert error.by_link


def test_nothing_is_reached_through_a_link_to_the_parent(tree: FileTree, root: Path) -> None:
    (root / "up").symlink_to("..")
    assert isinstance(refused(tree, "up/secret"), OutsideRootError)


@pytest.mark.parametrize("targets", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "sub/../a"}])
def test_links_without_end_are_refused(tree: FileTree, root: Path, targets: dict[str, str]) -> None:
    for link, target in targets.items():
        (root / link).symlink_to(target)
    for name in ("a", "a/file"):
        error = refused(tree, name)
        assert isinstance(error, OutsideRootError)
        assert error.by_link


def test_dangling_link_is_not_found(tree: FileTree, root: Path) -> None:
    (root / "link").symlink_to("missing")
    assert refused(tree, "link").code == ErrorCode.FILE_NOT_FOUND


@pytest.mark.parametrize("name", ["", "/", ".", "sub", "sub/", "sub/deep/..", "sub/.."])
def test_directory_is_refused(tree: FileTree, name: str) -> None:
    assert refused(tree, name).code == ErrorCode.ACCESS_VIOLATION


def test_fifo_neither_blocks_nor_opens(tree: FileTree, root: Path) -> None:
    os.mkfifo(root / "fifo")
    assert refused(tree, "fifo").code == ErrorCode.ACCESS_VIOLATION


def test_socket_is_refused(tree: FileTree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # the path of a socket may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert refused(tree, "socket").code == ErrorCode.ACCESS_VIOLATION


def test_device_is_refused(tree: FileTree, root: Path) -> None:
    try:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device node")
    assert refused(tree, "null").code == ErrorCode.ACCESS_VIOLATION


def test_nul_is_refused(tree: FileTree) -> None:
    assert refused(tree, "fi\0le").code == ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize("name", ["\x1b[2Jfile", "fi\nle", "\x9bfile", "\xfffile"])
def test_control_character_in_a_name_is_a_character_like_others(tree: FileTree, root: Path, name: str) -> None:
    assert refused(tree, name).code == ErrorCode.FILE_NOT_FOUND
    (root / name).write_bytes(b"odd")
    assert read(tree, name) == b"odd"


def test_file_larger_than_the_limit_is_refused(root: Path, make_resolver: MakeResolver) -> None:
    tree = FileTree(root, max_file_size_bytes=len(b"inner file"), make_resolver=make_resolver)
    assert read(tree, "sub/file") == b"inner file"
    (root / "sub/file").write_bytes(b"inner file+")
    error = refused(tree, "sub/file")
    tree.close()
    assert isinstance(error, FileTooLargeError)
    assert (error.code, error.size_bytes) == (ErrorCode.ACCESS_VIOLATION, 11)


def in_child_without_privileges(answer: Callable[[], int]) -> int:
    """Run in a forked child as nobody; the answer is its exit status, 0..99."""
    pid = os.fork()
    if pid == 0:
        status = 101
        try:
            os.setgroups([])
            os.setresgid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
            os.setresuid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
            status = answer()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("name", ["file", "sub/file"])
@pytest.mark.parametrize("way", ["open", "open_now"])
def test_file_without_permission_is_refused(tree: FileTree, root: Path, name: str, way: str) -> None:
    (root / "file").chmod(0)
    (root / "sub").chmod(0)

    def answer() -> int:
        opened = getattr(tree, way)(named(name))
        return 98 if opened is LATER else opened.refusal.code if isinstance(opened, NotHere) else 99

    if os.geteuid() == 0:
        code = in_child_without_privileges(answer)
    else:
        code = answer()
    (root / "sub").chmod(0o755)
    # The walk, and a name that nothing has looked up yet, cannot answer from the cache.
    assert code == ErrorCode.ACCESS_VIOLATION or (way == "open_now" and code == 98)


class FailingResolver:
    """Answers every path with one errno."""

    error_number = 0

    def __init__(self, root_fd: int, places: Sequence[Place]) -> None:
        pass

    def open(self, path: bytes) -> int:
        return -self.error_number

    open_cached = open

    def explain(self, path: bytes) -> str:
        return ""


@pytest.mark.parametrize(
    ("error_number", "code"),
    [
        (errno.EMFILE, ErrorCode.NOT_DEFINED),
        (errno.ENFILE, ErrorCode.NOT_DEFINED),
        (errno.ENOMEM, ErrorCode.NOT_DEFINED),
        (errno.EAGAIN, ErrorCode.NOT_DEFINED),
        (errno.EIO, ErrorCode.NOT_DEFINED),
        (errno.ESTALE, ErrorCode.NOT_DEFINED),
        (errno.ENOENT, ErrorCode.FILE_NOT_FOUND),
        (errno.ENAMETOOLONG, ErrorCode.FILE_NOT_FOUND),
        (errno.EACCES, ErrorCode.ACCESS_VIOLATION),
        (errno.EPERM, ErrorCode.ACCESS_VIOLATION),
        (errno.EXDEV, ErrorCode.ACCESS_VIOLATION),
        (errno.ENXIO, ErrorCode.ACCESS_VIOLATION),
    ],
)
def test_trouble_of_the_server_is_not_called_a_missing_file(root: Path, error_number: int, code: int) -> None:
    make_resolver = type("Failing", (FailingResolver,), {"error_number": error_number})
    tree = FileTree(root, make_resolver=make_resolver)
    assert refused(tree, "file").code == code
    tree.close()


def test_running_out_of_descriptors_is_told_as_busy(tree: FileTree) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        error = refused(tree, "file")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert error.code == ErrorCode.NOT_DEFINED
    assert "busy" in error.text


def test_fstat_that_fails_is_an_io_error_and_leaks_nothing(tree: FileTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> os.stat_result:
        raise OSError(errno.EIO, "disk")

    before = descriptors_at_rest()
    monkeypatch.setattr(os, "fstat", fail)
    error = refused(tree, "file")
    monkeypatch.undo()
    assert (error.code, error.text) == (ErrorCode.NOT_DEFINED, "I/O error")
    assert descriptors_at_rest() == before


# ---- without blocking


@pytest.fixture
def kernel_tree(root: Path) -> Iterator[FileTree]:
    if not kernel_has_openat2():
        pytest.skip("this kernel has no openat2, or a filter hides it")
    tree = FileTree(root)
    if not tree.is_local:
        pytest.skip("the temporary directory is on no local file system")
    yield tree
    tree.close()


def test_cached_name_is_opened_at_once(kernel_tree: FileTree) -> None:
    kernel_tree.open_for_reading("sub/file").close()
    file = kernel_tree.open_now(named("sub/file"))
    assert isinstance(file, OpenFile)
    assert os.pread(file.fd, 100, 0) == b"inner file"
    file.close()


def test_name_known_to_be_missing_is_refused_at_once(kernel_tree: FileTree) -> None:
    if file_systems._file_system_type(kernel_tree._root_fd) == TMPFS_MAGIC:
        pytest.skip("tmpfs remembers no missing names")
    refused(kernel_tree, "missing")
    answer = kernel_tree.open_now(named("missing"))
    assert isinstance(answer, NotHere)
    assert answer.refusal.code == ErrorCode.FILE_NOT_FOUND


def test_name_never_looked_up_would_block(kernel_tree: FileTree) -> None:
    assert kernel_tree.open_now(named("never looked up before")) is LATER


@pytest.mark.parametrize("way", ["", "sub/", "sub/../", "inside/", "missing/", "file/"])
@pytest.mark.parametrize("more", ["", "/more"])
def test_name_longer_than_any_is_refused_at_once(kernel_tree: FileTree, root: Path, way: str, more: str) -> None:
    """No cache holds it, so each of a flood of such names would take a thread."""
    if file_systems._file_system_type(kernel_tree._root_fd) == TMPFS_MAGIC and way == "missing/":
        pytest.skip("tmpfs remembers no missing names")
    (root / "inside").symlink_to("sub")
    refused(kernel_tree, way + "x")
    answer = kernel_tree.open_now(named(way + "\x01x" * 128 + more))
    assert isinstance(answer, NotHere)
    assert answer.refusal.code == ErrorCode.FILE_NOT_FOUND
    with pytest.raises(RefusedError) as caught:
        kernel_tree.open_for_reading(way + "\x01x" * 128 + more)
    assert caught.value.code == ErrorCode.FILE_NOT_FOUND


@pytest.mark.parametrize("name", ["x" * 255, "outside/" + "x" * 256, "never looked up before/" + "x" * 256])
def test_name_that_may_exist_elsewhere_would_block(kernel_tree: FileTree, root: Path, name: str) -> None:
    (root / "outside").symlink_to("/dev/shm")
    assert kernel_tree.open_now(named(name)) is LATER


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "outside"])
def test_cached_name_outside_is_never_opened(kernel_tree: FileTree, root: Path, name: str) -> None:
    (root / "outside").symlink_to(root.parent / "secret")
    (root.parent / "secret").read_bytes()
    answer = kernel_tree.open_now(named(name))
    assert answer is LATER or (isinstance(answer, NotHere) and isinstance(answer.refusal, OutsideRootError))


def test_other_mount_would_block() -> None:
    """A tmpfs within the tree: local and cached, so that only the mount itself stands in the way."""
    other = Path("/dev/shm")
    if not kernel_has_openat2() or not other.is_mount() or not os.access(other, os.W_OK):
        pytest.skip("no openat2, or no /dev/shm to cross into")
    tree = FileTree("/")
    tree.is_local = True
    with tempfile.NamedTemporaryFile(dir=other) as file:
        tree.open_for_reading(file.name).close()
        assert tree.open_now(named(file.name)) is LATER
    tree.close()


@pytest.mark.parametrize(("f_type", "is_answered"), [(0xEF53, True), (0x6969, False), (0x65735546, False), (0, False)])
def test_only_local_file_systems_answer_from_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch, f_type: int, is_answered: bool
) -> None:
    if not kernel_has_openat2():
        pytest.skip("this kernel has no openat2, or a filter hides it")
    monkeypatch.setattr(file_systems, "_file_system_type", lambda _: f_type)
    tree = FileTree(root)
    tree.open_for_reading("file").close()
    file = tree.open_now(named("file"))
    if isinstance(file, OpenFile):
        file.close()
    tree.close()
    assert isinstance(file, OpenFile) is is_answered


def test_type_of_a_file_system_is_read() -> None:
    tree = FileTree("/proc")
    assert file_systems._file_system_type(tree._root_fd) == 0x9FA0
    tree.close()
    assert file_systems._file_system_type(-1) == 0


def test_walk_never_answers_from_the_cache(root: Path) -> None:
    tree = FileTree(root, make_resolver=WalkResolver)
    read(tree, "file")
    assert tree.open_now(named("file")) is LATER
    tree.close()


# ---- the kernel's answers that a test machine does not give


@pytest.mark.parametrize("error_number", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_without_openat2_the_walk_is_chosen(error_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "openat2", lambda *_: -error_number)
    assert isinstance(choose_resolver(0, ()), WalkResolver)


def test_root_that_cannot_be_listed_does_not_hide_openat2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "openat2", lambda *_: -errno.EACCES)
    assert isinstance(choose_resolver(0), KernelResolver)


@pytest.mark.parametrize("error_number", [errno.EAGAIN, errno.EINTR])
def test_lost_race_with_a_rename_is_tried_again(error_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([-error_number, -error_number, 77])
    monkeypatch.setattr(confine, "openat2", lambda *_: next(answers))
    assert KernelResolver(0).open(b"x") == 77


def test_race_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([-errno.EAGAIN] * 100)
    monkeypatch.setattr(confine, "openat2", lambda *_: next(answers))
    assert KernelResolver(0).open(b"x") == -errno.EAGAIN
    assert len(list(answers)) == 92


def test_kernel_without_resolve_cached_would_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "openat2_at_once", lambda *_: -errno.EINVAL)
    assert KernelResolver(0).open_cached(b"x") == -errno.EAGAIN


# ---- the root, and threads


@pytest.mark.parametrize("name", ["missing", "file"])
def test_root_that_is_no_directory_is_a_config_error(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="root_dir: "):
        FileTree(root / name)


def test_closing_twice_does_nothing(root: Path) -> None:
    tree = FileTree(root)
    tree.close()
    tree.close()


def test_threads_get_their_own_answers(tree: FileTree, root: Path) -> None:
    for number in range(8):
        (root / f"file{number}").write_bytes(b"x" * number)
    wrong: list[str] = []

    def ask(number: int) -> None:
        for _ in range(300):
            if len(read(tree, f"file{number}")) != number:
                wrong.append(f"file{number}")
            if refused(tree, f"missing{number}").code != ErrorCode.FILE_NOT_FOUND:
                wrong.append(f"missing{number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_directory_moved_out_during_a_walk_takes_nobody_along(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sub/deep/../..` while `sub/deep` moves beside the root: its parent is then the parent of the root."""
    real_open = os.open
    moved = root.parent / "moved"

    def open_and_move(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = real_open(path, flags, mode, dir_fd=dir_fd)
        if path == b"deep" and not moved.exists():
            (root / "sub/deep").rename(moved)
        return fd

    tree = FileTree(root, make_resolver=WalkResolver)
    monkeypatch.setattr(os, "open", open_and_move)
    assert read(tree, "sub/deep/../file") == b"inner file"
    assert moved.exists()
    monkeypatch.undo()
    tree.close()


def test_file_swapped_for_a_link_during_a_walk_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def open_and_swap(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = real_open(path, flags, mode, dir_fd=dir_fd)
        if path == b"file" and flags & os.O_PATH:
            (root / "file").unlink()
            (root / "file").symlink_to(root.parent / "secret")
        return fd

    tree = FileTree(root, make_resolver=WalkResolver)
    monkeypatch.setattr(os, "open", open_and_swap)
    assert isinstance(refused(tree, "file"), OutsideRootError)
    assert (root / "file").is_symlink()
    monkeypatch.undo()
    tree.close()


def test_open_file_takes_over_the_descriptor(root: Path) -> None:
    fd = os.open(root / "file", os.O_RDONLY)
    OpenFile(fd, b"file", os.fstat(fd)).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
