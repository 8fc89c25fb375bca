"""What an import brings: our keys, where each comes from, and what could not be carried over.

May know: key paths, and TOML. Must not know any other server's options.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from snow_owl_tftp.config.check import check
from snow_owl_tftp.config.layers import Layer, located, merged, nested, sets
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.config.toml_text import line_of_key

__all__ = ["Carried", "Remark"]


class Remark(NamedTuple):
    """Something that did not come along as it was."""

    place: str
    """The file and line, or the option."""
    text: str
    """What it was, why it stays behind, what to do instead."""


class Carried:
    """Collects keys and remarks.

    Attributes:
        remarks: In the order of the file.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.remarks: list[Remark] = []
        self._layers: list[Layer] = []

    def set(self, path: str, value: Any, place: str) -> None:
        """Set a key; a later one wins, but entries of a list of tables are added."""
        self._layers.append(Layer(nested({path: value}, ValueError), lambda parts: place))

    def replace(self, path: str, value: Any, place: str) -> None:
        """Set a list of tables anew: what was there has gone into it."""
        self._layers = [layer for layer in self._layers if path not in layer.tree]
        self.set(path, value, place)

    def remark(self, place: str, text: str) -> None:
        """Say what stays behind, and why."""
        self.remarks.append(Remark(place, text))

    def has(self, path: str) -> bool:
        """Tell whether a key was set."""
        return sets(self._layers, path)

    def get(self, path: str) -> Any:
        """Return what a key was set to; None: it was not."""
        value: Any = self.tree
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @property
    def tree(self) -> dict[str, Any]:
        """All keys, as TOML has them."""
        return merged(self._layers)

    def checked(self) -> Settings:
        """Return what the keys amount to.

        Raises:
            ConfigError: What was carried over may not be said; each problem names where it comes from.
        """
        return check(self.tree, lambda path: located(self._layers, path) if self._layers else "import")

    def lines(self) -> Iterator[str]:
        """Yield our file, with where each key comes from behind it, and the remarks before all."""
        for remark in self.remarks:
            yield f"# NOT CARRIED OVER: {remark.place}: {remark.text}"
        yield from self._table(self.tree, "")

    def _table(self, tree: dict[str, Any], name: str) -> Iterator[str]:
        for key, value in tree.items():
            if not isinstance(value, dict) and not _is_list_of_tables(value):
                yield line_of_key(key, value, located(self._layers, name + key))
        for key, value in tree.items():
            if isinstance(value, dict):
                inner = list(self._table(value, f"{name}{key}."))
                if inner and not inner[0].startswith(("[", "\n")) and inner[0]:
                    yield from ("", f"[{name}{key}]")
                yield from inner
            elif _is_list_of_tables(value):
                for number, entry in enumerate(value, 1):
                    yield from ("", f"[[{name}{key}]]  # {located(self._layers, f'{name}{key}[{number}]')}")
                    yield from (line_of_key(*pair) for pair in entry.items())


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
