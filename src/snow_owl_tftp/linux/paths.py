"""Paths as the file system has them now.

May know: paths. Must not open anything.
"""

import os
from typing import Final

__all__ = ["real_path"]

_TRIES: Final = 8


def real_path(path: str | os.PathLike[str]) -> str:
    """Return a path without links, as os.path.realpath does; may block.

    That looks at a name twice, and fails (OSError) where a link became something else in between. Here it looks again,
    and where that goes on and on, returns the path as it is written: absolute, with its links.
    """
    for _ in range(_TRIES):
        try:
            return os.path.realpath(path)
        except OSError:
            continue
    return os.path.abspath(path)  # noqa: PTH100 - with its links
