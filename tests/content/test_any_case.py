"""Names in any case: what is found, what is ambiguous, and that a tree follows what happens on the disk."""

import errno
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.descriptors import descriptors_at_rest

from snow_owl_tftp.content.any_case import CaseTree
from snow_owl_tftp.content.confine import KernelResolver, choose_resolver
from snow_owl_tftp.content.tree_scan import TooManyNamesError, TreeScan
from snow_owl_tftp.content.walk import Place, WalkResolver
from snow_owl_tftp.linux.inotify import Change, Inotify


class Kept:
    """A tree that is brought up to date when somebody asks."""

    def __init__(
        self, root: Path, max_names: int = 1000, *, with_hidden: bool = False, remote: Path | None = None
    ) -> None:
        self.inotify = Inotify()
        self.place = Place(root, "root_dir")
        self.remote = remote
        self.scan = TreeScan(
            choose_resolver(self.place.fd, [self.place]),
            self.inotify,
            max_names=max_names,
            with_hidden=with_hidden,
            is_local=self.is_local,
        )
        self.tree = self.scan.scan()

    def is_local(self, fd: int) -> bool:
        return self.remote is None or not os.path.samestat(os.fstat(fd), self.remote.stat())

    def find(self, path: str, below: str = "") -> str | None:
        while changes := self.inotify.read():
            self.tree = self.scan.update(self.tree, changes)
        found = self.tree.find(os.fsencode(path), os.fsencode(below))
        return None if found is None else os.fsdecode(found)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("Boot/BCD", "Boot/Fonts/wgl4_boot.ttf", "snom370-000413241c66.htm", "Grüße.cfg", ".git/Config"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def kept(root: Path) -> Iterator[Kept]:
    kept = Kept(root)
    yield kept
    kept.inotify.close()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("boot/bcd", "Boot/BCD"),
        ("BOOT/BCD", "Boot/BCD"),
        ("Boot/BCD", "Boot/BCD"),
        ("boot/FONTS/WGL4_boot.TTF", "Boot/Fonts/wgl4_boot.ttf"),
        ("SNOM370-000413241C66.HTM", "snom370-000413241c66.htm"),
        ("GRÜßE.CFG", "Grüße.cfg"),
        ("boot", None),
        ("boot/fonts", None),
        ("boot/bcd/x", None),
        ("missing", None),
        (".", None),
        ("boot/../boot/bcd", None),
        ("..", None),
        (".GIT/config", None),
        ("grüsse.cfg", None),
        ("\udcff", None),
    ],
)
def test_name_is_found_that_differs_in_case_only(kept: Kept, asked: str, found: str | None) -> None:
    assert kept.find(asked) == found


@pytest.mark.parametrize(
    ("below", "path", "found"),
    [
        ("Boot", "bcd", "BCD"),
        ("Boot", "fonts/WGL4_BOOT.ttf", "Fonts/wgl4_boot.ttf"),
        ("Boot/Fonts", "WGL4_BOOT.ttf", "wgl4_boot.ttf"),
        ("boot", "bcd", None),  # the operator's own spelling of a directory counts
        ("Boot/BCD", "x", None),
        ("Missing", "bcd", None),
        ("Boot", "../Boot/bcd", None),
        ("Boot/..", "boot/bcd", None),
        ("", "boot/bcd", "Boot/BCD"),
    ],
)
def test_name_is_found_below_a_directory_of_the_tree(kept: Kept, below: str, path: str, found: str | None) -> None:
    assert kept.find(path, below) == found


def test_hidden_names_are_found_where_they_are_served(root: Path) -> None:
    kept = Kept(root, with_hidden=True)
    assert kept.find(".GIT/config") == ".git/Config"
    kept.inotify.close()


def test_name_of_several_is_ambiguous_and_counted(kept: Kept, root: Path) -> None:
    (root / "boot").mkdir()
    assert kept.find("BOOT/bcd") == "Boot/BCD", "only one of the two has it"
    (root / "boot/bcd").touch()
    assert kept.find("BOOT/bcd") is None
    assert kept.tree.ambiguous_total == 1
    (root / "boot/bcd").unlink()
    assert kept.find("BOOT/bcd") == "Boot/BCD"


def test_many_directories_that_differ_in_case_only_cost_no_more_than_a_few(tmp_path: Path) -> None:
    spellings = ["".join(pair) for pair in zip("aA" * 16, "bbBB" * 8, "cccccccc" * 2 + "C" * 16, "d" * 32, strict=True)]
    for name in {*spellings, *(name.replace("d", "D") for name in spellings)}:
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "x").touch()
    kept = Kept(tmp_path)
    assert kept.find("abcd/abcd/x") is None
    assert kept.tree.ambiguous_total == 1
    kept.inotify.close()


def test_tree_follows_what_happens(kept: Kept, root: Path) -> None:
    (root / "Boot/New").touch()
    assert kept.find("boot/new") == "Boot/New"
    (root / "Boot/New").rename(root / "Boot/Newer")
    assert (kept.find("boot/new"), kept.find("boot/newer")) == (None, "Boot/Newer")
    (root / "Boot").rename(root / "Start")
    assert (kept.find("boot/bcd"), kept.find("start/bcd")) == (None, "Start/BCD")
    (root / "Start/BCD").rename(root / "Start/Bcd2")
    assert kept.find("start/BCD2") == "Start/Bcd2"
    (root / "A/B/C").mkdir(parents=True)
    (root / "A/B/C/File").touch()
    assert kept.find("a/b/c/file") == "A/B/C/File"
    shutil.rmtree(root / "A")
    assert kept.find("a/b/c/file") is None
    assert len(kept.tree.by_watch) == 3  # the root, Start, Start/Fonts


def test_update_of_files_reads_one_directory_again_and_keeps_the_tree(kept: Kept, root: Path) -> None:
    before = kept.tree
    (root / "Boot/New").touch()
    assert kept.find("boot/new") == "Boot/New"
    assert kept.tree is before
    (root / "Boot/Dir").mkdir()
    kept.find("x")
    assert kept.tree is not before


def test_links_are_followed_within_the_root_and_as_they_lead_now(kept: Kept, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "Secret").touch()
    (root / "Current").symlink_to("Boot")
    (root / "Absolute").symlink_to(root / "Boot")
    (root / "Out").symlink_to(outside)
    (root / "Loop").symlink_to(".")
    (root / "File").symlink_to("Boot/BCD")
    assert kept.find("CURRENT/bcd") == "Current/BCD"
    assert kept.find("absolute/BCD") == "Absolute/BCD"
    assert kept.find("loop/LOOP/loop/current/bcd") == "Loop/Loop/Loop/Current/BCD"
    assert kept.find("file") == "File"
    assert kept.find("out/secret") is None
    (root / "Other").mkdir()
    (root / "Other/Kernel").touch()
    (root / "new").symlink_to("Other")
    (root / "new").rename(root / "Current")
    assert kept.find("current/kernel") == "Current/Kernel"
    assert kept.find("current/bcd") is None


def test_two_links_to_one_file_are_no_two_files(kept: Kept, root: Path) -> None:
    (root / "BOOT").symlink_to("Boot")
    assert (kept.find("bOOt/bcd") or "").lower() == "boot/bcd"


def test_too_many_names_are_no_tree(root: Path) -> None:
    kept = Kept(root, max_names=6)
    (root / "seventh").touch()
    with pytest.raises(TooManyNamesError):
        kept.find("x")
    with pytest.raises(TooManyNamesError):
        kept.scan.scan()
    kept.inotify.close()
    with pytest.raises(TooManyNamesError):
        Kept(root, max_names=6)


def test_root_that_others_may_change_unseen_is_no_tree(root: Path) -> None:
    with pytest.raises(OSError, match="others may change unseen") as caught:
        Kept(root, remote=root)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_root_that_is_gone_has_no_names(kept: Kept, root: Path) -> None:
    shutil.rmtree(root)
    assert kept.find("boot/bcd") is None
    assert kept.tree.names_total == 0
    assert not kept.inotify.read(), "and nothing more happens to it"


def test_lost_changes_make_it_read_everything_again(kept: Kept, root: Path) -> None:
    (root / "Boot/Unseen").touch()
    kept.inotify.read()
    assert kept.find("boot/unseen") is None
    kept.tree = kept.scan.update(kept.tree, [Change(-1, is_of_directory=False, is_lost=True)])
    assert kept.find("boot/unseen") == "Boot/Unseen"


def test_change_of_what_was_given_up_is_nobody_s_business(kept: Kept) -> None:
    before = kept.tree
    assert kept.scan.update(before, [Change(999_999, is_of_directory=True, is_lost=True)]) is before


def test_both_resolvers_make_the_same_tree(root: Path) -> None:
    (root / "Current").symlink_to(root / "Boot")
    place, inotify = Place(root, "root_dir"), Inotify()
    trees: list[CaseTree] = []
    for kind in (KernelResolver, WalkResolver):
        resolver = kind(place.fd, [place])
        scan = TreeScan(resolver, inotify, max_names=100, with_hidden=False, is_local=lambda fd: True)
        trees.append(scan.scan())
    assert trees[0].find(b"CURRENT/bcd") == trees[1].find(b"CURRENT/bcd") == b"Current/BCD"
    assert trees[0].names_total == trees[1].names_total
    inotify.close()


def test_whatever_happens_the_tree_is_that_of_a_new_look(tmp_path: Path) -> None:
    """Files, directories and links come, go and change places at random."""
    seed = int(os.environ.get("SNOW_OWL_SEED", "0")) or random.randrange(1 << 30)
    print("seed", seed)
    rng, root = random.Random(seed), tmp_path / "root"
    root.mkdir()
    kept = Kept(root, max_names=100_000)
    before = descriptors_at_rest()
    for _ in range(300):
        change_something(rng, root)
        if rng.random() < 0.3:
            kept.find("x")
    (root / "Unique").touch()  # chance may leave none but names of which there are several
    kept.find("x")
    fresh = Kept(root, max_names=100_000)
    paths = {os.fsencode(path.relative_to(root)).swapcase() for path in root.rglob("*")}
    found = {path: kept.tree.find(path) for path in paths}
    assert found == {path: fresh.tree.find(path) for path in paths}, seed
    assert found[b"uNIQUE"] == b"Unique", seed
    assert len(kept.tree.by_watch) == len(fresh.tree.by_watch), seed
    fresh.inotify.close()
    fresh.place.close()
    assert descriptors_at_rest() == before, seed
    kept.inotify.close()


def change_something(rng: random.Random, root: Path) -> None:
    directories = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
    everything = list(root.rglob("*"))
    name = "".join(rng.choice("abAB") for _ in range(2))
    target = rng.choice(directories) / name
    try:
        match rng.randrange(6):
            case 0 | 1:
                target.touch()
            case 2:
                target.mkdir()
            case 3:
                target.symlink_to(os.path.relpath(rng.choice([root, *everything]), target.parent))
            case 4 if everything:
                rng.choice(everything).rename(target)
            case 5 if everything:
                gone = rng.choice(everything)
                shutil.rmtree(gone) if gone.is_dir() and not gone.is_symlink() else gone.unlink()
    except OSError:
        pass
