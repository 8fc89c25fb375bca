"""Where links lead: into the root by any spelling, to places that are named, and nowhere else whatever is renamed."""

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.content.test_files import MakeResolver, descriptors_at_rest, kernel_has_openat2, read, refused

from snow_owl_tftp.content.confine import KernelResolver
from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.content.walk import WalkResolver
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode

SECRET = b"outside"
AT_FDCWD = -100
RENAME_EXCHANGE = 2  # include/uapi/linux/fs.h


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A root with two releases, a place beside it, and beside both a secret."""
    for release in ("7", "8"):
        (tmp_path / "root/releases" / release).mkdir(parents=True)
        (tmp_path / "root/releases" / release / "file").write_bytes(b"release " + release.encode())
    (tmp_path / "place/sub").mkdir(parents=True)
    (tmp_path / "place/file").write_bytes(b"place")
    (tmp_path / "place/sub/file").write_bytes(b"place sub")
    (tmp_path / "placebo").mkdir()
    (tmp_path / "placebo/file").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "file").write_bytes(SECRET)
    return tmp_path


@pytest.fixture(params=[KernelResolver, WalkResolver])
def make_resolver(request: pytest.FixtureRequest) -> MakeResolver:
    if request.param is KernelResolver and not kernel_has_openat2():
        pytest.skip("this kernel has no openat2, or a filter hides it")
    chosen: MakeResolver = request.param
    return chosen


MakeTree = Callable[..., FileTree]


@pytest.fixture
def make_tree(base: Path, make_resolver: MakeResolver) -> Iterator[MakeTree]:
    before, trees = descriptors_at_rest(), []

    def make(*link_targets: str, root: Path = base / "root") -> FileTree:
        targets = tuple(str(base / target) for target in link_targets)
        trees.append(FileTree(root, make_resolver=make_resolver, link_targets=targets))
        return trees[-1]

    yield make
    for tree in trees:
        tree.close()
    assert descriptors_at_rest() == before, "a descriptor leaked"


def link(base: Path, where: str, target: str) -> None:
    (base / "root" / where).symlink_to(target.format(base=base))


# ---- into the root


@pytest.mark.parametrize(
    ("links", "name", "content"),
    [
        ({"current": "{base}/root/releases/7"}, "current/file", b"release 7"),
        ({"file": "{base}/root/releases/7/file"}, "file", b"release 7"),
        ({"releases/now": "{base}/root/releases/8"}, "releases/now/file", b"release 8"),
        ({"releases/now": "{base}/root/releases/8"}, "releases/now/../7/file", b"release 7"),
        ({"a": "{base}/root/b", "b": "{base}/root/releases/7"}, "a/file", b"release 7"),
        ({"a": "b", "b": "{base}/root/c", "c": "releases/7"}, "a/file", b"release 7"),
        ({"a": "b/../8", "b": "{base}/root/releases/7"}, "a/file", b"release 8"),
        ({"a": "{base}//root/./releases/7/../8/"}, "a/file", b"release 8"),
        ({"a": "{base}/root"}, "a/a/releases/7/file", b"release 7"),
        ({"a": "../root/releases/7"}, "a/file", b"release 7"),
        ({"releases/a": "../../root/releases/7/file"}, "releases/a", b"release 7"),
    ],
)
def test_link_into_the_root_is_followed_however_it_is_spelled(
    base: Path, make_tree: MakeTree, links: dict[str, str], name: str, content: bytes
) -> None:
    for where, target in links.items():
        link(base, where, target)
    assert read(make_tree(), name) == content


def test_root_that_is_a_link_is_known_by_both_its_paths(base: Path, make_tree: MakeTree) -> None:
    (base / "srv").symlink_to("root")
    link(base, "by_link", "{base}/srv/releases/7/file")
    link(base, "by_path", "{base}/root/releases/8/file")
    tree = make_tree(root=base / "srv")
    assert (read(tree, "by_link"), read(tree, "by_path")) == (b"release 7", b"release 8")


def test_absolute_links_without_end_are_refused(base: Path, make_tree: MakeTree) -> None:
    link(base, "a", "{base}/root/b")
    link(base, "b", "{base}/root/a")
    error = refused(make_tree(), "a/file")
    assert isinstance(error, OutsideRootError)
    assert error.by_link


def test_dangling_absolute_link_is_not_found(base: Path, make_tree: MakeTree) -> None:
    link(base, "a", "{base}/root/missing/file")
    assert refused(make_tree(), "a").code == ErrorCode.FILE_NOT_FOUND


# ---- to places that are named


@pytest.mark.parametrize(
    ("target", "name", "content"),
    [
        ("{base}/place/file", "link", b"place"),
        ("{base}/place", "link/file", b"place"),
        ("{base}/place", "link/sub/../file", b"place"),
        ("{base}/place/sub", "link/../file", b"place"),
        ("../place/file", "link", b"place"),
        ("../place/sub/../file", "link", b"place"),
        ("releases/../../place/sub", "link/file", b"place sub"),
    ],
)
def test_link_to_a_named_place_is_followed(
    base: Path, make_tree: MakeTree, target: str, name: str, content: bytes
) -> None:
    link(base, "link", target)
    assert read(make_tree("place"), name) == content
    error = refused(make_tree(), name)
    assert isinstance(error, OutsideRootError)
    assert error.by_link


def test_link_within_a_place_may_lead_back_into_the_root_or_to_another_place(base: Path, make_tree: MakeTree) -> None:
    link(base, "link", "{base}/place")
    (base / "place/back").symlink_to(base / "root/releases/7/file")
    (base / "place/out").symlink_to("../placebo/file")
    tree = make_tree("place")
    assert read(tree, "link/back") == b"release 7"
    assert isinstance(refused(tree, "link/out"), OutsideRootError)
    assert read(make_tree("place", "placebo"), "link/out") == SECRET


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("{base}/placebo/file", "link"),
        ("{base}/place2/file", "link"),
        ("{base}/place/../secret", "link"),
        ("{base}/place/sub/../../secret", "link"),
        ("{base}/place/../placebo", "link/file"),
        ("{base}/x/../place", "link/file"),
        ("../secret", "link"),
        ("../place/../secret", "link"),
        ("{base}", "link/place/file"),
        ("..", "link/place/file"),
        ("..", "link/root/releases/7/file"),
        ("/", "link/etc/passwd"),
        ("{base}/place", "link/../secret"),
        ("{base}/place", "link/../place/file"),
        ("{base}/place", "link/../root/releases/7/file"),
        ("{base}/place/sub", "link/../../secret"),
        ("/proc/self/cwd", "link/file"),
    ],
)
def test_what_is_in_no_place_stays_refused(base: Path, make_tree: MakeTree, target: str, name: str) -> None:
    link(base, "link", target)
    assert isinstance(refused(make_tree("place"), name), OutsideRootError)


def test_name_reaches_a_place_by_a_link_only(base: Path, make_tree: MakeTree) -> None:
    tree = make_tree("place")
    for name in ("../place/file", "releases/../../place/file", f"{base}/place/file"):
        assert refused(tree, name).code in (ErrorCode.ACCESS_VIOLATION, ErrorCode.FILE_NOT_FOUND)


def test_place_that_is_a_link_is_known_by_both_its_paths(base: Path, make_tree: MakeTree) -> None:
    (base / "alias").symlink_to("place")
    link(base, "by_alias", "{base}/alias/file")
    link(base, "by_path", "{base}/place/file")
    tree = make_tree("alias")
    assert (read(tree, "by_alias"), read(tree, "by_path")) == (b"place", b"place")


def test_further_path_of_the_root_is_a_place_like_others(base: Path, make_tree: MakeTree) -> None:
    (base / "tftpboot").symlink_to("root")
    link(base, "link", "{base}/tftpboot/releases/7/file")
    assert isinstance(refused(make_tree(), "link"), OutsideRootError)
    assert read(make_tree("tftpboot"), "link") == b"release 7"


@pytest.mark.parametrize("target", ["missing", "secret"])
def test_place_that_is_no_directory_is_a_config_error(base: Path, target: str) -> None:
    with pytest.raises(ConfigError, match="link_targets: "):
        FileTree(base / "root", link_targets=(str(base / target),))


# ---- what stands in the way is named for the operator


@pytest.mark.parametrize(
    ("target", "name", "why"),
    [
        ("{base}/secret", "link", "the link link -> {base}/secret leads out of the root (EXDEV)"),
        ("../../../secret", "releases/7/link", "the link releases/7/link -> ../../../secret leads out of the root"),
        ("file", "../secret", "the name leads out of the root (EXDEV)"),
        ("link", "link", "links without end, such as link -> link (ELOOP)"),
    ],
)
def test_refusal_names_the_link(base: Path, make_tree: MakeTree, target: str, name: str, why: str) -> None:
    where = name if name.endswith("link") else "link"
    link(base, where, target)
    assert refused(make_tree(), name).why.startswith(why.format(base=base))


class Unprivileged:
    """Files without permission stop us although the tests may run as root."""

    def __enter__(self) -> None:
        self._euid = os.geteuid()
        if self._euid == 0:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        os.seteuid(self._euid)


@pytest.mark.parametrize(
    ("closed", "name", "why"),
    [
        ("releases/7/file", "releases/7/file", "releases/7/file may not be read (EACCES)"),
        ("releases/7", "releases/7/file", "releases/7 may not be entered (EACCES)"),
        ("releases", "releases/7/file", "releases may not be entered (EACCES)"),
        ("../place/file", "link/file", "{base}/place/file may not be read (EACCES)"),
    ],
)
def test_refusal_names_what_may_not_be_entered_or_read(
    base: Path, make_tree: MakeTree, closed: str, name: str, why: str
) -> None:
    link(base, "link", "{base}/place")
    tree = make_tree("place")
    path = base / "root" / closed
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with Unprivileged():
            error = refused(tree, name)
    finally:
        path.chmod(mode)
    assert (error.code, error.why) == (ErrorCode.ACCESS_VIOLATION, why.format(base=base))


# ---- renames while a path is being walked


class SwappingOpen:
    """os.open that renames once, right after it has looked at a part."""

    def __init__(self, part: bytes, swap: Callable[[], object]) -> None:
        self._real = os.open
        self._part = part
        self._swap = swap
        self.is_done = False

    def __call__(self, path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = self._real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]
        if path == self._part and flags & os.O_PATH and not self.is_done:
            self.is_done = True
            self._swap()
        return fd


def swap_for_link(path: Path, target: Path) -> None:
    path.rename(path.with_name("swapped"))
    path.symlink_to(target)


@pytest.mark.parametrize("targets", [(), ("place",)])
def test_file_swapped_for_a_link_behind_an_absolute_link_is_not_followed(
    base: Path, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch, targets: Sequence[str]
) -> None:
    directory = base / "place" if targets else base / "root/releases/7"
    link(base, "current", str(directory))
    tree = make_tree(*targets)
    swapping = SwappingOpen(b"file", lambda: swap_for_link(directory / "file", base / "secret"))
    monkeypatch.setattr(os, "open", swapping)
    error = refused(tree, "current/file")
    assert swapping.is_done
    assert isinstance(error, OutsideRootError)


def test_directory_swapped_for_a_link_is_the_directory_that_was_looked_at(
    base: Path, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(base, "current", "{base}/root/releases/7")
    tree = make_tree()
    swapping = SwappingOpen(b"7", lambda: swap_for_link(base / "root/releases/7", base / "placebo"))
    monkeypatch.setattr(os, "open", swapping)
    assert read(tree, "current/file") == b"release 7"
    assert swapping.is_done


def test_place_moved_away_during_a_walk_takes_nobody_along(
    base: Path, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(base, "link", "{base}/place/sub/../file")
    tree = make_tree("place")
    swapping = SwappingOpen(b"sub", lambda: (base / "place/sub").rename(base / "placebo/sub"))
    monkeypatch.setattr(os, "open", swapping)
    assert read(tree, "link") == b"place"
    assert swapping.is_done


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.mark.parametrize(
    ("links", "name"),
    [
        ({"go": "{base}/root/releases/7"}, "go/file"),
        ({"go": "{base}/root/releases/7/file"}, "go"),
        ({"go": "releases/7/../7"}, "go/file"),
        ({"go": "{base}/place/back", "../place/back": "{base}/root/releases/7"}, "go/file"),
        ({"go": "../place/back", "../place/back": "../root/releases/7"}, "go/../7/file"),
    ],
)
@pytest.mark.parametrize("bait", ["{base}/placebo", "../../placebo", "../.."])
def test_no_race_of_renames_leads_out(
    base: Path, make_tree: MakeTree, links: dict[str, str], name: str, bait: str
) -> None:
    """A directory on the way and a link out of every place change names, as fast as they can, while we open."""
    for where, target in links.items():
        link(base, where, target)
    link(base, "releases/bait", bait)
    tree, is_over, swaps = make_tree("place"), threading.Event(), [0]

    def swap() -> None:
        while not is_over.is_set():
            exchange(base / "root/releases/7", base / "root/releases/bait")
            swaps[0] += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    inside = outside = 0
    deadline_s = time.monotonic() + 20
    try:
        while (inside < 50 or outside < 50 or swaps[0] < 500) and time.monotonic() < deadline_s:
            try:
                assert read(tree, name) == b"release 7"
                inside += 1
            except RefusedError:
                outside += 1
    finally:
        is_over.set()
        swapper.join()
    assert min(inside, outside) >= 50, (inside, outside)
