"""Which file system has to be asked next: found without asking one that hangs."""

import os
from pathlib import Path

from tests.support.fuse import Fuse, own_mounts

from snow_owl_tftp.content.devices import device_of, device_of_descriptor
from snow_owl_tftp.content.walk import Place


def test_device_is_that_of_the_directory_where_nothing_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "out").symlink_to("/nowhere")
    here = tmp_path.stat().st_dev
    places = [Place(tmp_path, "root_dir")]
    for path in (
        b"",
        b".",
        b"a/b/file",
        b"a/b/none",
        b"none/none",
        b"a/../a/b",
        b"../..",
        b"loop",
        b"out",
        b"x/" * 500,
    ):
        assert device_of(places, path, is_local=True) == here
        assert device_of(places, path, here) == here
    for place in places:
        place.close()


def test_device_of_a_descriptor_is_the_one_that_fstat_tells(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    status = os.fstat(fd)
    assert device_of_descriptor(fd) == (status.st_dev, status.st_mode)
    os.close(fd)


@own_mounts
def test_mount_is_found_by_names_and_links_while_it_hangs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (root / "link").symlink_to("deep/mnt/x")
    (root / "absolute").symlink_to(root / "deep" / "mnt" / "x")
    (root / "to-directory").symlink_to("deep/mnt")
    (root / "back").symlink_to("deep/mnt/../../link")
    places = [Place(root, "root_dir")]
    here = root.stat().st_dev
    with Fuse(root / "deep" / "mnt", {"x": b""}) as fuse:
        there = (root / "deep" / "mnt").stat().st_dev
        assert there != here
        fuse.hang("lookup", "open", "read")
        for path in (b"deep/mnt/x", b"link", b"absolute", b"to-directory/x/y", b"back", b"deep/mnt"):
            assert device_of(places, path, is_local=True) == there, path
            assert device_of(places, path, here) == there, path
        assert device_of(places, b"deep/other", is_local=True) == here
        assert fuse.asked["lookup"] == 0
    for place in places:
        place.close()
