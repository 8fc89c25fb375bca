"""Key paths: "write_config.enabled" for a key in a table. May know: tables, whatever is in them."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, get_args, get_origin

import msgspec
from msgspec import Struct

__all__ = ["by_path", "is_table", "key_paths", "table_of_list"]


def is_table(kind: object) -> TypeGuard[type[Struct]]:
    """Tell whether a field of this type is a table of its own."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def table_of_list(kind: object) -> type[Struct] | None:
    """Return the table of which a field of this type is a list, `[[name]]` in TOML; None: it is no such list."""
    members = get_args(kind) if get_origin(kind) is tuple else ()
    return members[0] if members and is_table(members[0]) else None


def key_paths(table_type: type[Struct], prefix: str = "") -> Iterator[str]:
    """Yield the path of every key and table that a schema has."""
    for field in msgspec.structs.fields(table_type):
        path = prefix + field.name
        yield path
        if is_table(field.type):
            yield from key_paths(field.type, path + ".")
        elif (listed := table_of_list(field.type)) is not None:
            yield from key_paths(listed, path + "[].")


def by_path(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value of nested tables under its path."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= by_path(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
