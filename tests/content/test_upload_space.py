"""The account behind max_total_bytes: what counts, what is reserved, and when it is counted anew."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.content.test_uploads import Terms, opened, put, receive, refusal

from snow_owl_tftp.content.store import staging
from snow_owl_tftp.content.store.space import RECOUNT_S, Space
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.fixture
def area(root: Path) -> Iterator[UploadArea]:
    """Room for 100 bytes of *.cfg."""
    area = UploadArea(root, max_total_bytes=100, counts=lambda path: path.endswith(b".cfg"))
    yield area
    area.close()


def test_what_exists_counts_with_versions_and_without_the_rest(area: UploadArea, root: Path) -> None:
    (root / "a.cfg").write_bytes(bytes(10))
    (root / "sub/b.cfg").write_bytes(bytes(20))
    (root / "a.cfg.~7~").write_bytes(bytes(30))
    (root / "boot.img").write_bytes(bytes(1000))
    (root / "link.cfg").symlink_to("boot.img")
    assert area.sweep().counted_bytes == 60


def test_first_upload_counts_what_exists_even_without_a_sweep(area: UploadArea, root: Path) -> None:
    (root / "a.cfg").write_bytes(bytes(95))
    assert refusal(lambda: area.begin(Terms(b"b.cfg"), 6)).code == ErrorCode.DISK_FULL


def test_announced_size_is_reserved(area: UploadArea) -> None:
    first = opened(area, Terms(b"a.cfg"), 60)
    assert refusal(lambda: area.begin(Terms(b"b.cfg"), 41)).code == ErrorCode.DISK_FULL
    second = opened(area, Terms(b"b.cfg"), 40)
    first.close()
    third = opened(area, Terms(b"c.cfg"), 60)
    second.close()
    third.close()


def test_unannounced_upload_reserves_what_has_arrived(area: UploadArea) -> None:
    first = opened(area, Terms(b"a.cfg"))
    assert first.limit_bytes == 100
    receive(first, bytes(60))
    assert refusal(lambda: area.begin(Terms(b"b.cfg"), 41)).code == ErrorCode.DISK_FULL
    second = opened(area, Terms(b"b.cfg"))
    assert second.limit_bytes == 40
    first.close()
    second.close()


def test_whoever_is_whole_first_is_stored(area: UploadArea, root: Path) -> None:
    """What has no grant yet does not stand in its way; otherwise each would be refused for the other's sake."""
    first, second = opened(area, Terms(b"a.cfg")), opened(area, Terms(b"b.cfg"))
    receive(first, bytes(60))
    receive(second, bytes(60))
    first.commit(60)
    assert refusal(lambda: second.commit(60)).code == ErrorCode.DISK_FULL
    for upload in (first, second):
        upload.close()
    assert {path.name for path in root.glob("*.cfg")} == {"a.cfg"}
    assert area.space.used_bytes == 60


def test_of_two_that_arrived_in_the_same_moment_one_is_stored(area: UploadArea) -> None:
    first, second = opened(area, Terms(b"a.cfg")), opened(area, Terms(b"b.cfg"))
    receive(first, bytes(60))
    receive(second, bytes(60))
    area.space.finish(first._reception.reservation)  # as commit does first
    assert refusal(lambda: second.commit(60)).code == ErrorCode.DISK_FULL
    assert first.commit(60).size_bytes == 60
    for upload in (first, second):
        upload.close()


def test_what_is_whole_does_not_take_what_was_announced(area: UploadArea) -> None:
    announced, other = opened(area, Terms(b"a.cfg"), 50), opened(area, Terms(b"b.cfg"))
    receive(other, bytes(50) + b"x")
    assert refusal(lambda: other.commit(51)).code == ErrorCode.DISK_FULL
    receive(announced, bytes(50))
    assert announced.commit(50).size_bytes == 50
    for upload in (announced, other):
        upload.close()


def test_full_area_refuses_at_once(area: UploadArea) -> None:
    put(area, Terms(b"a.cfg"), bytes(100))
    assert refusal(lambda: area.begin(Terms(b"b.cfg"))).code == ErrorCode.DISK_FULL


def test_smaller_of_both_limits_holds(root: Path) -> None:
    area = UploadArea(root, max_total_bytes=100, max_file_size_bytes=30)
    upload = opened(area, Terms(b"a"))
    assert upload.limit_bytes == 30
    upload.close()
    put(area, Terms(b"b"), bytes(30))
    put(area, Terms(b"c"), bytes(30))
    put(area, Terms(b"d"), bytes(30))
    upload = opened(area, Terms(b"a"))
    assert upload.limit_bytes == 10
    upload.close()
    area.close()


def test_replaced_file_gives_its_room_back_but_a_version_does_not(area: UploadArea) -> None:
    put(area, Terms(b"a.cfg"), bytes(40))
    put(area, Terms(b"a.cfg", on_existing="replace"), bytes(30))
    assert area.space.used_bytes == 30
    put(area, Terms(b"a.cfg", on_existing="version"), bytes(30))
    assert area.space.used_bytes == 60


def test_netascii_counts_as_stored(area: UploadArea) -> None:
    put(area, Terms(b"a.cfg"), b"\r\n" * 40, is_netascii=True)
    assert area.space.used_bytes == 40


def test_what_somebody_tidied_up_is_noticed_before_refusing(root: Path) -> None:
    now = 1000.0
    counts: list[int] = []

    def count() -> int:
        counts.append(sum(path.stat().st_size for path in root.glob("*.cfg")))
        return counts[-1]

    space = Space(100, count, clock=lambda: now)
    (root / "old.cfg").write_bytes(bytes(90))
    with (root / "new").open("wb") as file:
        with pytest.raises(RefusedError):
            space.reserve(file.fileno(), 20)
        (root / "old.cfg").unlink()
        with pytest.raises(RefusedError):
            space.reserve(file.fileno(), 20)
        assert counts == [90], "counted again too soon"
        now += RECOUNT_S
        reservation, _ = space.reserve(file.fileno(), 20)
        assert counts == [90, 0]
        space.release(reservation)


def test_little_room_is_counted_anew_before_an_upload_of_unknown_size(root: Path) -> None:
    """What somebody removed leaves room that the account does not know of: an upload would be cut off by it."""
    now = 1000.0
    space = Space(100, lambda: sum(path.stat().st_size for path in root.glob("*.cfg")), clock=lambda: now)
    (root / "old.cfg").write_bytes(bytes(95))
    with (root / "new").open("wb") as file:
        assert space.reserve(file.fileno(), None)[1] == 5
        (root / "old.cfg").unlink()
        assert space.reserve(file.fileno(), None)[1] == 5, "counted again too soon"
        now += RECOUNT_S
        assert space.reserve(file.fileno(), None)[1] == 100


def test_count_that_was_forgotten_is_made_before_the_next_upload() -> None:
    counts = iter([100, 900])
    space = Space(1000, lambda: next(counts))
    space.check(500)
    space.check(500)
    space.forget_count()
    with pytest.raises(RefusedError):
        space.check(500)
    assert list(counts) == []


def test_count_may_be_forgotten_while_somebody_waits_for_a_disk_with_the_account_in_hand() -> None:
    """A reload does it, in the event loop."""
    space, forgets = Space(1000, lambda: 0), threading.Thread(target=lambda: space.forget_count(), daemon=True)
    with space._lock:
        forgets.start()
        forgets.join(5)
        assert not forgets.is_alive()


def test_count_may_be_forgotten_while_somebody_asks_how_old_it_is(root: Path) -> None:
    now = 0.0

    def clock() -> float:
        if now:
            space.forget_count()
        return now

    space = Space(100, lambda: 90, clock=clock)
    space.check(10)
    now = RECOUNT_S
    with pytest.raises(RefusedError):
        space.check(20)


def test_what_is_committed_during_a_count_is_not_forgotten(root: Path) -> None:
    now = 0.0
    with (root / "new").open("wb") as file:

        def count() -> int:
            if now:
                space.settle(reservation, 50, 0)
            return 0

        space = Space(100, count, clock=lambda: now)
        reservation, _ = space.reserve(file.fileno(), 50)
        now = RECOUNT_S
        with pytest.raises(RefusedError):
            space.reserve(file.fileno(), 60)
        assert space.used_bytes == 50


def test_without_a_limit_nothing_is_counted(root: Path) -> None:
    def count() -> int:
        raise AssertionError("counted")

    space = Space(0, count)
    fd = os.open(root / "new", os.O_WRONLY | os.O_CREAT)
    reservation, limit_bytes = space.reserve(fd, None)
    space.claim(reservation, 2**60)
    space.release(reservation)
    os.close(fd)
    assert limit_bytes == 0


def test_uploads_that_outgrow_the_limit_together_are_cut_off_largest_first(area: UploadArea, root: Path) -> None:
    small, large, announced = (
        opened(area, Terms(b"a.cfg")),
        opened(area, Terms(b"b.cfg")),
        opened(area, Terms(b"c.cfg"), 30),
    )
    receive(small, bytes(40))
    assert area.space.trim() == 0
    receive(large, bytes(60))
    assert area.space.trim() == 1
    assert area.space.trim() == 0
    with pytest.raises(OSError, match="No space left"):
        os.pwrite(large.fd, b"x", 60)
    assert refusal(lambda: large.commit(60)).code == ErrorCode.DISK_FULL
    receive(announced, bytes(30))
    assert small.commit(40).size_bytes == 40
    assert announced.commit(30).size_bytes == 30
    for upload in (small, large, announced):
        upload.close()
    assert sorted(path.name for path in root.iterdir()) == ["a.cfg", "c.cfg", "sub"]


def test_upload_that_is_being_stored_is_not_cut_off(area: UploadArea, root: Path) -> None:
    stored, other = opened(area, Terms(b"a.cfg")), opened(area, Terms(b"b.cfg"))
    receive(stored, bytes(60))
    receive(other, bytes(50))
    area.space.finish(stored._reception.reservation)  # as commit does first
    assert area.space.trim() == 1
    assert stored.commit(60).size_bytes == 60
    assert refusal(lambda: other.commit(50)).code == ErrorCode.DISK_FULL
    for upload in (stored, other):
        upload.close()
    assert (root / "a.cfg").stat().st_size == 60


def test_cut_off_upload_has_lost_its_bytes_although_it_has_a_name(
    area: UploadArea, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "open_unnamed", lambda *_, **__: -1)
    upload, other = opened(area, Terms(b"a.cfg")), opened(area, Terms(b"b.cfg"))
    receive(upload, bytes(90))
    receive(other, bytes(20))
    assert area.space.trim() == 1
    assert sum(path.stat().st_size for path in root.iterdir() if path.is_file()) == 20
    upload.close()
    other.close()
    assert [path.name for path in root.iterdir()] == ["sub"]


def test_files_removed_meanwhile_are_noticed_before_anything_is_cut_off(root: Path) -> None:
    now_s = [0.0]
    area = UploadArea(root, max_total_bytes=100)
    area.space._clock = lambda: now_s[0]
    (root / "old").write_bytes(bytes(80))
    area.sweep()
    uploads = [opened(area, Terms(b"a.cfg")), opened(area, Terms(b"b.cfg"))]
    for upload in uploads:
        receive(upload, bytes(20))
    (root / "old").unlink()
    now_s[0] = RECOUNT_S
    assert area.space.trim() == 0
    for upload in uploads:
        upload.close()
    area.close()


def test_without_a_full_device_a_cut_off_upload_fails_all_the_same(
    area: UploadArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = [opened(area, Terms(b"a.cfg")), opened(area, Terms(b"b.cfg"))]
    receive(uploads[0], bytes(90))
    receive(uploads[1], bytes(20))
    real_open = os.open

    def open_other(path: str, *arguments: int, **more: int) -> int:
        if path == "/dev/full":
            raise FileNotFoundError(2, "No such file or directory")
        return real_open(path, *arguments, **more)

    monkeypatch.setattr(os, "open", open_other)
    assert area.space.trim() == 1
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(uploads[0].fd, b"x", 90)
    for upload in uploads:
        upload.close()
