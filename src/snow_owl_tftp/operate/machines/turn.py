"""When a file is due, and how the kernel is asked to say that it has changed.

May know: paths and folders. Must not know what a file holds.
"""

import os
from pathlib import Path
from typing import NamedTuple

from snow_owl_tftp.linux.folder_news import ANY_WATCH, FolderNews, News
from snow_owl_tftp.operate.machines.followed import FollowedFile

__all__ = ["Turn", "Watched", "watch_folders"]


class Turn:
    """When a file is due.

    Attributes:
        file: The file.
        due_s: When it is to be looked at, by the monotonic clock.
        not_before_s: And not before this, whatever happens.
        is_busy: A look is under way.
        is_stale: Something has changed since that look began.
        watches: Of folders whose news are about it.
        names: How it is called there.
    """

    def __init__(self, file: FollowedFile) -> None:
        self.file = file
        self.due_s = 0.0
        self.not_before_s = 0.0
        self.is_busy = False
        self.is_stale = False
        self.watches: frozenset[int] = frozenset()
        self.names: frozenset[bytes] = frozenset()

    def is_about(self, news: News) -> bool:
        """Whether the file may be another one now."""
        is_its_folder = news.watch in self.watches or news.watch == ANY_WATCH
        return is_its_folder and (not news.name or news.name in self.names)


class Watched(NamedTuple):
    """What is watched of a file: folders, and its names in them; `refused`: why nothing is."""

    watches: frozenset[int] = frozenset()
    names: frozenset[bytes] = frozenset()
    refused: OSError | None = None


def watch_folders(news: FolderNews | None, path: str) -> Watched:
    """Have the folders of a file watched: the one that its path names, and the one that links lead to."""
    if news is None:
        return Watched()
    named = Path(path)
    try:
        real = named.resolve()
        watches = frozenset(news.follow(str(folder)) for folder in {named.parent, real.parent})
    except FileNotFoundError:
        return Watched()  # the look itself says so
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return Watched(refused=error if isinstance(error, OSError) else OSError(None, str(error)))
    return Watched(watches, frozenset({os.fsencode(named.name), os.fsencode(real.name)}))
