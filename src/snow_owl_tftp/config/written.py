"""Whole configurations as TOML: what is in force, and a file to begin with.

    Settings, remark ──shown──► lines, valid TOML          (`config show`)
    the schema ──commented──► every key, as a remark       (`config init`)
               ──reference──► every key, in tables         (`config schema --markdown`, docs/settings.md)

May know: any schema, its descriptions, ranges and defaults. Must not know any key of it.
"""

import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from snow_owl_tftp.config.check import expected
from snow_owl_tftp.config.paths import is_table, table_of_list
from snow_owl_tftp.config.toml_text import line_of_key, text_of
from snow_owl_tftp.config.words import words_of

__all__ = ["commented", "reference", "shown"]

_WIDTH: Final = 100


def shown(settings: Struct, remark: Callable[[str], str], prefix: str = "", name: str = "") -> Iterator[str]:
    """Write settings as the TOML that brings them about.

    Args:
        settings: A table of any schema.
        remark: What to say behind a key, by its path; nothing where it is empty.
        prefix: The path that goes before its keys, with a dot at the end.
        name: Of the table, as its header has it.

    Yields:
        Lines. Of the entries of a list of tables only the keys that are not the default.
    """
    for field in _plain_fields(type(settings)):
        value = getattr(settings, field.name)
        if value is not None:
            yield line_of_key(field.name, msgspec.to_builtins(value), remark(prefix + field.name))
    for field in _table_fields(type(settings)):
        path, value = prefix + field.name, getattr(settings, field.name)
        if isinstance(value, tuple):
            for number, entry in enumerate(value, 1):
                yield from _entry(entry, f"{name}{field.name}", f"{path}[{number}]", remark)
        elif isinstance(value, Struct):
            inner = list(shown(value, remark, f"{path}.", f"{name}{field.name}."))
            if inner and not inner[0].startswith("["):
                yield from ("", f"[{name}{field.name}]")
            yield from inner


def commented(table_type: type[Struct], name: str = "", hidden: bool = False) -> Iterator[str]:
    """Write every key of a schema as a remark, with what it means, its range and its default.

    Args:
        table_type: A table of any schema.
        name: Of the table, as its header has it, with a dot at the end; empty: the top level.
        hidden: Headers are remarks too: of an entry of a list, of which there is none by default.
    """
    words = words_of(table_type)
    for field in _plain_fields(table_type):
        yield from ("", *_described(words.get(field.name, ""), field))
    for field in _table_fields(table_type):
        listed = table_of_list(field.type)
        kind = listed or field.type
        yield from ("", "", *_remark(_first_line(kind)))
        header = f"[[{name}{field.name}]]" if listed else f"[{name}{field.name}]"
        yield f"# {header}" if hidden or listed else header
        yield from commented(kind, f"{name}{field.name}.", hidden=hidden or listed is not None)


def reference(table_type: type[Struct], name: str = "") -> Iterator[str]:
    """Write every key of a schema as Markdown: tables of keys, defaults, ranges and meanings.

    Args:
        table_type: A table of any schema.
        name: Of the table, as its header has it, with a dot at the end; empty: the top level.
    """
    words = words_of(table_type)
    if plain := _plain_fields(table_type):
        yield from ("", "| key | default | expected | |", "|---|---|---|---|")
    for field in plain:
        default = _default(field)
        shown_default = "" if default is NODEFAULT or default is None else f"`{_default_text(field)}`"
        cells = (f"`{field.name}`", shown_default, expected(field.type, field.name), words.get(field.name, ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for field in _table_fields(table_type):
        listed = table_of_list(field.type)
        kind, path = listed or field.type, f"{name}{field.name}"
        meaning = _first_line(kind).partition(": ")[2] or _first_line(kind)
        yield from ("", f"## `[[{path}]]`" if listed else f"## `[{path}]`", "", meaning[:1].upper() + meaning[1:])
        yield from reference(kind, f"{path}.")


def _entry(entry: Struct, header: str, path: str, remark: Callable[[str], str]) -> Iterator[str]:
    said = remark(path)
    yield from ("", f"[[{header}]]" + (f"  # {said}" if said else ""))
    for field in msgspec.structs.fields(type(entry)):
        value = getattr(entry, field.name)
        if value != _default(field):
            told = _changed(value) if isinstance(value, Struct) else msgspec.to_builtins(value)
            yield line_of_key(field.name, told, remark(f"{path}.{field.name}"))


def _changed(table: Struct) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(table)
    defaults = {field.name: _default(field) for field in msgspec.structs.fields(type(table))}
    return {name: told[name] for name, default in defaults.items() if getattr(table, name) != default}


def _plain_fields(table_type: type[Struct]) -> list[FieldInfo]:
    """Those that stand before the first header: TOML has no way back to the top."""
    fields = msgspec.structs.fields(table_type)
    return [field for field in fields if not is_table(field.type) and table_of_list(field.type) is None]


def _table_fields(table_type: type[Struct]) -> list[FieldInfo]:
    plain = {field.name for field in _plain_fields(table_type)}
    return [field for field in msgspec.structs.fields(table_type) if field.name not in plain]


def _default(field: FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not NODEFAULT else field.default


def _described(words: str, field: FieldInfo) -> Iterator[str]:
    yield from _remark(" ".join(filter(None, (words, f"({expected(field.type, field.name)})"))))
    default = _default(field)
    missing = default is NODEFAULT or default is None
    yield f"# {field.name} =" if missing else f"# {field.name} = {_default_text(field)}"


def _default_text(field: FieldInfo) -> str:
    if field.name == "file_mode":  # as everybody writes it
        return f"0o{_default(field):03o}"
    return text_of(msgspec.to_builtins(_default(field)))


def _remark(text: str) -> list[str]:
    return [f"## {line}" for line in textwrap.wrap(text, _WIDTH)]


def _first_line(table_type: type[Struct]) -> str:
    return (table_type.__doc__ or "").partition("\n")[0]
