"""What differs between two configurations, key by key. May know: any settings. Must not know what a key does."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from snow_owl_tftp.config.paths import by_path
from snow_owl_tftp.config.schema import Settings

__all__ = ["Difference", "differences"]


class Difference(NamedTuple):
    """One key that differs; of a list of tables the list as a whole."""

    path: str
    before: Any
    after: Any


def differences(before: Settings, after: Settings) -> Iterator[Difference]:
    """Yield each key whose values differ, by path."""
    old, new = by_path(msgspec.to_builtins(before)), by_path(msgspec.to_builtins(after))
    for path in sorted(new):
        if old[path] != new[path]:
            yield Difference(path, old[path], new[path])
