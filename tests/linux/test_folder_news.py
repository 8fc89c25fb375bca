"""inotify for folders."""

import gc
import os
from pathlib import Path

import pytest
from tests.support.server import wait_for

from snow_owl_tftp.linux.folder_news import ANY_WATCH, FolderNews, News


@pytest.fixture
def news() -> FolderNews:
    return FolderNews()


def test_nothing_is_new_where_nothing_happens(news: FolderNews, tmp_path: Path) -> None:
    assert news.follow(str(tmp_path)) == news.follow(f"{tmp_path}/.") > 0
    (tmp_path / "known").touch()
    assert news.read() != set()
    assert news.read() == set()


def test_change_of_a_file_has_its_name(news: FolderNews, tmp_path: Path) -> None:
    file = tmp_path / "leases"
    file.touch()
    watch = news.follow(str(tmp_path))
    with file.open("ab") as opened:
        opened.write(b"more")
    assert news.read() == {News(watch, b"leases")}
    os.truncate(file, 0)
    assert news.read() == {News(watch, b"leases")}


def test_change_of_names_may_be_about_any_file(news: FolderNews, tmp_path: Path) -> None:
    watch = news.follow(str(tmp_path))
    steps = [
        lambda: (tmp_path / "new").touch(),
        lambda: (tmp_path / "new").rename(tmp_path / "leases"),
        lambda: (tmp_path / "leases").unlink(),
    ]
    for step in steps:
        step()
        assert News(watch, b"") in news.read()


def test_folder_that_goes_is_told(news: FolderNews, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    watch = news.follow(str(folder))
    folder.rmdir()
    assert news.read() == {News(watch, b"")}
    with pytest.raises(FileNotFoundError):
        news.follow(str(folder))


def test_file_is_no_folder(news: FolderNews, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        news.follow(str(tmp_path / "file"))


def test_events_that_were_lost_are_about_any_file(news: FolderNews, tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    watch = news.follow(str(tmp_path))
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    other.touch()
    with one.open("ab", buffering=0) as first, other.open("ab", buffering=0) as second:
        for _ in range(most // 2 + 10):  # two alike in a row are one event
            first.write(b"x")
            second.write(b"x")
    heard: set[News] = set()
    while found := news.read():
        heard |= found
    assert {News(ANY_WATCH, b""), News(watch, b"one")} <= heard


def test_descriptor_goes_with_the_last_reference(tmp_path: Path) -> None:
    news = FolderNews()
    link = Path(f"/proc/self/fd/{news.fileno()}")
    assert "inotify" in str(link.readlink())
    del news
    gc.collect()
    wait_for(lambda: not link.exists() or "inotify" not in str(link.readlink()), "its end")
