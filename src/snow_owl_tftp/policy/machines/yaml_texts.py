"""YAML as an inventory needs it: lists, tables and texts, built from the parser's events.

    bytes ─PyYAML's parser─► events ─texts_of─► lists, dictionaries, texts

PyYAML's own way from events to objects is recursive, in C: a file of 100,000 brackets ends the process with a
segmentation fault, and a server reads its inventory while it runs. Nor does it mind a key that stands there twice. And
every scalar is a text here: YAML 1.1 takes 52:54:00:12:34:56 for a number to the base of 60, and NO for false.

May know: PyYAML, if it is installed. Must not know what an inventory holds.
"""

from importlib import import_module
from typing import Any, Final

__all__ = ["MissingLibraryError", "texts_of"]

_MAX_DEPTH: Final = 16


class MissingLibraryError(Exception):
    """Nothing here reads YAML."""


def texts_of(data: bytes) -> object:
    """Read one document; None: it is empty.

    Raises:
        ValueError: It is no YAML, or holds what has no place in an inventory.
        MissingLibraryError: PyYAML is not installed.
    """
    try:
        yaml: Any = import_module("yaml")
    except ImportError as error:
        raise MissingLibraryError(
            'YAML needs PyYAML: install "snow-owl-tftp[yaml]", or write the inventory as TOML, JSON or CSV'
        ) from error
    building = _Building()
    try:
        # With libyaml: 0.02 s of CPU for 1,000 machines, without it 0.37 s.
        for event in yaml.parse(data.decode("utf-8"), Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            building.take(type(event).__name__, event)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return building.tree


class _Building:
    """What has been built of a document.

    Attributes:
        tree: The whole, once all events were taken.
    """

    def __init__(self) -> None:
        self.tree: object = None
        self._documents = 0
        self._open: list[list[Any] | dict[str, Any]] = []
        self._keys: list[str | None] = []  # of each open table: the key whose value comes next
        self._anchors: dict[str, object] = {}

    def take(self, kind: str, event: Any) -> None:
        """Take one event; raises ValueError."""
        if kind == "ScalarEvent":
            self._add(event.value, event)
        elif kind == "MappingStartEvent":
            self._begin({}, event)
        elif kind == "SequenceStartEvent":
            self._begin([], event)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._open.pop()
            self._keys.pop()
        elif kind == "AliasEvent":
            if event.anchor not in self._anchors:
                raise ValueError(f"line {_line(event)}: nothing is called &{event.anchor}")
            self._add(self._anchors[event.anchor], event)
        elif kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise ValueError(f"line {_line(event)}: a second document")

    def _begin(self, made: list[Any] | dict[str, Any], event: Any) -> None:
        self._add(made, event)
        if len(self._open) >= _MAX_DEPTH:
            raise ValueError(f"line {_line(event)}: nested more than {_MAX_DEPTH} times")
        self._open.append(made)
        self._keys.append(None)

    def _add(self, value: object, event: Any) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        if not self._open:
            self.tree = value
            return
        into, key = self._open[-1], self._keys[-1]
        if isinstance(into, list):
            into.append(value)
        elif key is not None:
            into[key], self._keys[-1] = value, None
        elif not isinstance(value, str) or value in into:
            raise ValueError(f"line {_line(event)}: a key that is no text, or stands there twice")
        else:
            self._keys[-1] = value


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
