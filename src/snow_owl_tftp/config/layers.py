"""Where settings come from, and what each place adds: the file, its drop-ins, the environment, flags.

    snow-owl.toml ────┐
    conf.d/*.toml ────┤
    SNOW_OWL_TFTP__… ─┼─► layers ──merged──► one tree;   layers, path ──located──► "snow-owl.toml:17"
    flags ────────────┘

A later layer wins. Tables are merged key by key; of lists of tables (`[[rules]]`) a later layer's come behind the
earlier ones; every other value replaces what was there.

May know: trees as TOML has them, and the names of keys. Must not check a value, or open a file.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from snow_owl_tftp.config.lines import Parts, depth_of, parts_of

__all__ = ["Layer", "laid_over", "located", "merged", "nested", "sets"]


class Layer(NamedTuple):
    """One place where settings stand."""

    tree: dict[str, Any]
    where: Callable[[Parts], str]
    """Puts in words where a key of this layer stands; no parts: the place as a whole."""


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Lay every layer over those before it."""
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = laid_over(tree, layer.tree, lists_grow=True)
    return tree


def laid_over(under: dict[str, Any], over: Mapping[str, Any], *, lists_grow: bool = False) -> dict[str, Any]:
    """Return a tree with the keys of another in the place of its own, table by table.

    Args:
        under: It stays as it is.
        over: The other.
        lists_grow: A list of tables comes behind the one that is there.
    """
    tree = dict(under)
    for key, value in over.items():
        there = tree.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            tree[key] = laid_over(there, value, lists_grow=lists_grow)
        elif lists_grow and _is_list_of_tables(there) and _is_list_of_tables(value):
            tree[key] = [*(there or ()), *value]
        else:
            tree[key] = value
    return tree


def located(layers: Sequence[Layer], path: str) -> str:
    """Say where a key of the merged tree stands, or the innermost table that it is missing from.

    Args:
        layers: As they were merged.
        path: As messages have it: "rules[3].paths".
    """
    place, deepest = layers[0].where(()), 0
    parts = parts_of(path)
    for number, layer in enumerate(layers):
        own = _own_parts(layers[:number], parts)
        depth = depth_of(layer.tree, own)
        if depth and depth >= deepest:
            place, deepest = layer.where(own[:depth]), depth
    return place


def sets(layers: Sequence[Layer], path: str) -> bool:
    """Tell whether any layer says something about a key, or about something in it."""
    parts = parts_of(path)
    owns = (_own_parts(layers[:number], parts) for number in range(len(layers)))
    return any(depth_of(layer.tree, own) == len(parts) for layer, own in zip(layers, owns, strict=True))


def nested(values: Mapping[str, object], unknown: Callable[[str], Exception]) -> dict[str, Any]:
    """Make a tree of flat key paths.

    Args:
        values: By path; None means that nothing was given.
        unknown: Makes the error for a path that leads through something that is no table.
    """
    tree: dict[str, Any] = {}
    for path, value in values.items():
        if value is None:
            continue
        *tables, key = path.split(".")
        table: Any = tree
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise unknown(path)
        table[key] = value
    return tree


def _own_parts(before: Sequence[Layer], parts: Parts) -> list[str | int]:
    """Count the place in a list of tables from where this layer's begin."""
    own: list[str | int] = []
    for depth, part in enumerate(parts):
        earlier = sum(_length(layer.tree, parts[:depth]) for layer in before) if isinstance(part, int) else 0
        own.append(part - earlier if isinstance(part, int) else part)
    return own


def _length(tree: Any, parts: Parts) -> int:
    for part in parts:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return len(tree) if _is_list_of_tables(tree) else 0


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, Mapping) for one in value)
