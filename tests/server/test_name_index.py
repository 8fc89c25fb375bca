"""The thread that keeps the names below the root: fresh, bounded, ended, and given up with one line."""

import errno
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.descriptors import settled_descriptors
from tests.support.server import wait_for

from snow_owl_tftp.content.tree_scan import TreeScan
from snow_owl_tftp.linux.inotify import Inotify
from snow_owl_tftp.server import name_index
from snow_owl_tftp.server.name_index import NameIndex, Where


class Told(list[tuple[str, str, Mapping[str, object]]]):
    """What was said."""

    def __call__(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        self.append((level, event, fields))

    @property
    def reasons(self) -> list[Any]:
        return [fields["reason"] for level, _, fields in self if level == "warning"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "Boot").mkdir(parents=True)
    (root / "Boot/BCD").touch()
    return root


def where(root: Path, max_names: int = 100) -> Where:
    return Where(str(root), (), max_names, with_hidden=False)


@contextmanager
def indexing(place: Where | None) -> Iterator[tuple[NameIndex, Told]]:
    index, told = NameIndex(), Told()
    index.follow(place)
    index.listen(told)
    try:
        yield index, told
    finally:
        index.close()
        wait_for(lambda: not threads(), "the end of its threads")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tftp-names"]


def test_names_are_found_once_they_are_read_and_what_comes_is_found_soon(root: Path) -> None:
    with indexing(where(root)) as (index, told):
        wait_for(lambda: index.find(b"boot/bcd") == b"Boot/BCD", "the first look")
        (root / "New").mkdir()
        (root / "New/File").touch()
        wait_for(lambda: index.find(b"NEW/file") == b"New/File", "what came")
        (root / "New/File").unlink()
        wait_for(lambda: index.find(b"NEW/file") is None, "what went")
        assert [(level, event) for level, event, _ in told] == [("info", "names indexed")]
        assert index.figures()["names_indexed"] == 3
        assert index.figures()["directories_watched"] == 3
        assert index.figures()["index_rescans"] >= 1


def test_whoever_waits_for_the_names_has_them_and_waits_for_nothing_else(root: Path) -> None:
    with indexing(None) as (index, _):
        index.settle(20)
        for _ in range(3):
            index.follow(where(root))
            index.settle(20)
            assert index.find(b"boot/bcd") == b"Boot/BCD"
        index.follow(where(root, max_names=1))
        index.settle(20)
        assert index.find(b"boot/bcd") is None


def test_without_a_root_there_is_no_thread_and_nothing_to_count() -> None:
    with indexing(None) as (index, told):
        assert index.find(b"x") is None
        assert index.figures() == {}
        assert threads() == []
        assert told == []


def test_another_root_is_followed(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "Kernel").touch()
    with indexing(where(root)) as (index, _):
        wait_for(lambda: index.find(b"boot/bcd"), "the first look")
        index.follow(where(other))
        wait_for(lambda: index.find(b"KERNEL") == b"Kernel", "the other root")
        assert index.find(b"boot/bcd") is None
        wait_for(lambda: len(threads()) == 1, "the end of the first thread")
        index.follow(None)
        assert index.find(b"KERNEL") is None


def test_too_many_names_are_told_once_with_the_key(root: Path) -> None:
    with indexing(where(root, max_names=2)) as (index, told):
        wait_for(lambda: index.find(b"boot/bcd"), "the first look")
        (root / "Third").touch()
        wait_for(lambda: told.reasons, "a line")
        assert index.find(b"boot/bcd") is None
        assert told.reasons == ["there are more than names.max_indexed = 2; raise it"]
        wait_for(lambda: not threads(), "the end of the thread")
        index.follow(where(root))
        wait_for(lambda: index.find(b"THIRD") == b"Third", "the index, which another limit allows")


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "max_user_watches"), (errno.EMFILE, "max_user_instances"), (errno.ENOSYS, "")]
)
def test_where_there_is_no_inotify_that_is_told_once_with_the_remedy(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(self: Inotify, directory_fd: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Inotify, "watch", refuse)
    with indexing(where(root)) as (index, told):
        wait_for(lambda: told.reasons, "a line")
        assert remedy in told.reasons[0]
        assert os.strerror(number) in told.reasons[0]
        assert index.find(b"boot/bcd") is None
        time.sleep(0.05)
        assert len(told) == 1


def test_root_of_others_and_root_that_is_none_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with indexing(where(root / "missing")) as (_, told):
        wait_for(lambda: told.reasons, "a line")
        assert "root_dir" in told.reasons[0]
    monkeypatch.setattr(name_index, "is_on_local_file_system", lambda fd: False)
    with indexing(where(root)) as (_, told):
        wait_for(lambda: told.reasons, "a line")
        assert "others may change unseen" in told.reasons[0]


def test_bug_of_ours_costs_the_index_and_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inotify, "watch", lambda self, fd: {}["bug"])
    with indexing(where(root)) as (_, told):
        wait_for(lambda: told.reasons, "a line")
        assert "internal error: KeyError" in told.reasons[0]


def test_changes_without_end_cost_a_tenth_of_a_core(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    update = TreeScan.update

    def slow(*args: Any) -> Any:
        looks.append(time.monotonic())
        time.sleep(0.02)
        return update(*args)

    monkeypatch.setattr(TreeScan, "update", slow)
    with indexing(where(root)) as (index, _):
        wait_for(lambda: index.find(b"boot/bcd"), "the first look")

        def change() -> bool:
            (root / "x").touch()
            (root / "x").unlink()
            return len(looks) >= 4

        wait_for(change, "some looks")
    # A look takes 20 ms here at least, so nine times as much lies between its end and the next one's beginning.
    assert all(later - sooner >= 0.2 for sooner, later in pairwise(looks))


@pytest.mark.parametrize(("hung_s", "most"), [(0.0, 6), (1000.0, name_index._MAX_ENDING + 2)])
def test_threads_that_hang_are_left_behind_up_to_a_bound(
    root: Path, monkeypatch: pytest.MonkeyPatch, hung_s: float, most: int
) -> None:
    comes_back, hanging = threading.Event(), []

    def hang(self: Inotify, fd: int) -> int:
        hanging.append(fd)
        comes_back.wait()
        return 1

    monkeypatch.setattr(name_index, "_HUNG_S", hung_s)
    monkeypatch.setattr(Inotify, "watch", hang)
    with indexing(where(root)) as (index, told):
        while not told.reasons and len(hanging) <= 2 * most:
            wait_for(lambda: len(hanging) == len(threads()), "the last of them")
            index.follow(where(root))
        begun = len(threads())
        comes_back.set()
        assert begun <= most
        assert any("hang" in reason for reason in told.reasons)


def test_reloads_while_names_are_read_cost_no_index_and_no_thread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        (root / str(number)).mkdir()
    watch = Inotify.watch

    def slow(self: Inotify, fd: int) -> int:
        time.sleep(0.002)
        return watch(self, fd)

    monkeypatch.setattr(Inotify, "watch", slow)
    with indexing(where(root, 1000)) as (index, told):
        for _ in range(60):
            index.follow(where(root, 1000))
            time.sleep(0.01)  # far less than the reading takes
            assert len(threads()) < name_index._MAX_ENDING
        wait_for(lambda: index.find(b"boot/bcd"), "the last look")
        wait_for(lambda: len(threads()) == 1, "the end of the others")
        assert told.reasons == []


def test_two_who_follow_at_once_leave_one_thread(root: Path) -> None:
    """The event loop reloads while a thread finds that the root has moved."""
    with indexing(where(root)) as (index, told):

        def follow() -> None:
            for _ in range(300):
                index.follow(where(root))
                wait_for(lambda: len(threads()) < 8, "the end of some")

        both = [threading.Thread(target=follow) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        wait_for(lambda: len(threads()) == 1, "the end of the others")
        assert told.reasons == []


def test_no_descriptor_for_a_thread_costs_the_index_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with indexing(where(root)) as (index, told):
        wait_for(lambda: index.find(b"boot/bcd"), "the first look")
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe2", none_left)
            index.follow(where(root))
        assert told.reasons == ["Too many open files"]
        index.follow(where(root))
        wait_for(lambda: index.find(b"boot/bcd"), "another look")


def test_close_leaves_no_descriptor_and_no_thread(root: Path) -> None:
    before = settled_descriptors()
    for _ in range(3):
        with indexing(where(root)) as (index, _):
            wait_for(lambda: index.find(b"boot/bcd"), "the first look")
            index.follow(where(root))
    assert settled_descriptors() == before


def test_lines_of_before_somebody_listens_are_told(root: Path) -> None:
    index, told = NameIndex(), Told()
    index.follow(where(root))
    wait_for(lambda: index.find(b"boot/bcd"), "the first look")
    index.listen(told)
    wait_for(lambda: [event for _, event, _ in told] == ["names indexed"], "the line")
    index.close()
