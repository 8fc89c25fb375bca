"""Whether settings hold together: every problem at once, each with its key path and the remedy.

    tree of tables ──check──► Settings, or one ConfigError

May know: the schema, and how to put its types in words.

Invariants:
- What is wrong is refused as a whole: nobody wants to meet five typing errors in five restarts.
- An unknown key is an error, never ignored: a misspelt limit that is silently off is worse than a
  server that does not start.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo

from snow_owl_tftp.config.legacy import remedy_of
from snow_owl_tftp.config.machines import machines_contradictions, machines_without_effect
from snow_owl_tftp.config.made import problems_of_made
from snow_owl_tftp.config.names import problems_of
from snow_owl_tftp.config.paths import is_table, key_paths, table_of_list
from snow_owl_tftp.config.rules import problems_of_rules
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError

__all__ = ["check", "expected", "unknown_key", "without_effect"]

_MAX_SHOWN: Final = 4
"""Rules in one line; there may be thousands."""


def check(tree: dict[str, Any], where: str | Callable[[str], str]) -> Settings:
    """Check a tree of tables, whole.

    Args:
        tree: As TOML has it; keys that are missing have their defaults.
        where: Whom to name in an error; or says of a key path where it stands.

    Raises:
        ConfigError: A key is unknown, a value out of range, or two contradict each other; every problem is named.
    """
    problems = list(_problems(Settings, tree, ""))
    if not problems:
        settings = msgspec.convert(tree, Settings)
        problems = list(_contradictions(settings))
    if problems:
        raise ConfigError("\n".join(f"{_place(where, problem)}: {problem}" for problem in problems))
    return settings


def _place(where: str | Callable[[str], str], problem: str) -> str:
    return where if isinstance(where, str) else where(problem.partition(": ")[0])


def _problems(table_type: type[Struct], tree: dict[str, Any], prefix: str) -> Iterator[str]:
    """Check key by key: msgspec alone stops at the first error and does not name the range."""
    fields = _fields_of(table_type)
    for name, field in fields.items():
        if field.required and name not in tree:
            yield f"{prefix}{name}: missing; expected {expected(field.type, name)}"
    for key, value in tree.items():
        path = prefix + key
        if key not in fields:
            yield unknown_key(path)
            continue
        kind = fields[key].type
        if is_table(kind) and isinstance(value, dict):
            yield from _problems(kind, value, path + ".")
            continue
        listed = table_of_list(kind)
        if listed is not None and isinstance(value, (list, tuple)) and all(isinstance(one, dict) for one in value):
            for number, one in enumerate(value, 1):
                yield from _problems(listed, one, f"{path}[{number}].")
            continue
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            yield f"{path}: expected {expected(kind, key)}, got {_shown(value)}"
        else:
            texts = value if isinstance(value, (list, tuple)) else [value]
            if any(isinstance(text, str) and "\0" in text for text in texts):
                yield f"{path}: has a NUL; remove it"


@cache
def _fields_of(table_type: type[Struct]) -> Mapping[str, FieldInfo]:
    """Once a type: msgspec reads its annotations anew each time, which took most of the time of a thousand rules."""
    return {field.name: field for field in msgspec.structs.fields(table_type)}


def _contradictions(settings: Settings) -> Iterator[str]:
    try:
        if not settings.bind_addresses:
            yield 'bind_addr: the list is empty; name at least one "ADDR:PORT"'
    except ConfigError as error:
        yield f"bind_addr: {error}"
    try:
        ports = settings.tid_port_range
    except ConfigError as error:
        yield f"tid_ports: {error}"
    else:
        if ports and settings.single_port:
            yield "tid_ports: has no effect with single_port = true; remove one of them"
        elif ports and ports[1] - ports[0] + 1 < settings.worker_count:
            yield f"tid_ports: every worker needs one; widen it to {settings.worker_count} ports or more"
    timer = settings.retransmit
    if not timer.floor_ms <= timer.initial_ms <= timer.ceiling_ms:
        yield (
            "retransmit: expected floor_ms <= initial_ms <= ceiling_ms, got "
            f"{timer.floor_ms}, {timer.initial_ms}, {timer.ceiling_ms}"
        )
    yield from problems_of_rules(settings.rules)
    if settings.logging.audit_enabled and not settings.logging.audit_path:
        yield "logging.audit_file: audit_enabled = true needs it; name a file"
    yield from problems_of(settings.names)
    yield from machines_contradictions(settings.machines)
    yield from problems_of_made(settings.templates, settings.template_dir, settings.handlers)


def without_effect(settings: Settings) -> dict[str, str]:
    """Return what was set and changes nothing beside the other settings, by key path, and what to do about it.

    No contradiction, since files are kept where auditing is switched off for a while; but nobody should wait for an
    audit log that is not written.
    """
    idle = {}
    if settings.logging.audit_file and not settings.logging.audit_enabled:
        idle["logging.audit_file"] = "set logging.audit_enabled = true, or remove it"
    if settings.single_port and settings.tid_sockets != Settings().tid_sockets:
        idle["tid_sockets"] = "remove it, or single_port = true"
    if settings.names.max_indexed != Settings().names.max_indexed and settings.names.case != "insensitive":
        idle["names.max_indexed"] = 'remove it, or set names.case = "insensitive"'
    if settings.names.case == "insensitive" and (roots := list(_roots_not_indexed(settings))):
        shown = ", ".join(roots[:_MAX_SHOWN] + ["…"] * (len(roots) > _MAX_SHOWN))
        idle["names.case"] = (
            f"case counts in {shown}, which lie outside of root_dir or are hidden: name directories below root_dir, or"
            " links there to some of link_targets"
        )
    if settings.template_dir and not settings.templates:
        idle["template_dir"] = "add [[templates]], or remove it"
    return idle | machines_without_effect(settings.machines)


def _roots_not_indexed(settings: Settings) -> Iterator[str]:
    """Roots of rules whose names nobody reads, though their case is not to count."""
    above = os.path.join(os.path.abspath(settings.root_dir), "")  # noqa: PTH100, PTH118 - text only
    for number, rule in enumerate(settings.rules, 1):
        for root in rule.roots:
            inside = (root + "/").removeprefix(above)
            is_hidden = not settings.may_serve_hidden and any(
                part.startswith(".") and part != "." for part in inside.split("/")
            )
            if inside.startswith("/") or is_hidden:
                yield f"rules[{number}].roots"
                break


def unknown_key(path: str) -> str:
    """Put in words that there is no such key, and what was meant."""
    remedy = remedy_of(path)
    if remedy is not None:
        return f"{path}: {remedy}"
    import difflib  # lazy: only for a file that is refused

    # By the last part of the path: a key in the wrong table is found as well as a misspelt one, which goes first.
    table = re.sub(r"\[\d+\]", "[]", path).rpartition(".")[0]
    paths = sorted(key_paths(Settings), key=lambda other: other.rpartition(".")[0] == table)
    known = {other.rpartition(".")[2]: other for other in paths}
    near = difflib.get_close_matches(path.rpartition(".")[2], known, n=1)
    return f"{path}: unknown key; " + (f"did you mean {known[near[0]]}?" if near else "remove it")


def expected(kind: Any, key: str) -> str:
    """Put a declared type in words, with its range; some keys are told apart by their name."""
    if key == "file_mode":
        return 'permissions 0o000..0o777, such as 0o644 or "0644"'
    metas = [arg for arg in get_args(kind) if isinstance(arg, Meta)]
    if metas and metas[0].max_length is not None:
        return f"a text of {metas[0].min_length or 0}..{metas[0].max_length} characters"
    if metas:
        return f"{metas[0].ge}..{metas[0].le}"
    if get_origin(kind) is Literal:
        return ("one of " if len(get_args(kind)) > 1 else "") + ", ".join(f'"{value}"' for value in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(expected(part, key) for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is tuple:
        return _expected_list(get_args(kind)[0], key)
    return {bool: "true or false", str: "a text"}.get(kind, "a table")


def _expected_list(kind: Any, key: str) -> str:
    if is_table(kind):
        return f"tables, each [[{key}]]"
    return f"a list of texts, each {expected(kind, key)}" if get_origin(kind) is Literal else "a list of texts"


def _shown(value: object) -> str:
    """Show a value as the file spells it, cut so that one bad value cannot fill the screen."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
