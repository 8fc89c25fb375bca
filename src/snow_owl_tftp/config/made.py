"""[[templates]] and [[handlers]]: names that no file answers, but a text that is made for who asks.

May know: the vocabulary. Must not read a template, import a handler or compile a pattern: whoever makes content does.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

__all__ = ["HandlerEntry", "TemplateEntry", "beside", "problems_of_made"]

_MAX_ENTRIES: Final = 1_000
"""Of each kind: more than anybody writes by hand."""
_HANDLER: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


class TemplateEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of [[templates]]: what is sent under names of one form."""

    match: str
    """A glob, with variables: "pxelinux.cfg/01-{mac_dashes}"."""
    template: str
    """A file below `template_dir`; without that one beside the configuration."""


class HandlerEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of [[handlers]]: a function that is asked first."""

    match: str
    """A glob; "**" asks it about everything."""
    handler: str
    """"module:function"."""


def problems_of_made(
    templates: Sequence[TemplateEntry], template_dir: str, handlers: Sequence[HandlerEntry]
) -> Iterator[str]:
    """Yield what types alone do not say, each with its key and the remedy."""
    for key, entries in (("templates", templates), ("handlers", handlers)):
        if len(entries) > _MAX_ENTRIES:
            yield f"{key}: {len(entries)} of them; {_MAX_ENTRIES} is the most"
    for number, template in enumerate(templates, 1):
        parts = Path(template.template).parts
        if not parts or "\0" in template.template:
            yield f"templates[{number}].template: expected the name of a file, got none"
        elif template_dir and (Path(template.template).is_absolute() or ".." in parts):
            yield f'templates[{number}].template: "{template.template}" leads out of template_dir; move the file there'
    for number, handler in enumerate(handlers, 1):
        if not _HANDLER.fullmatch(handler.handler):
            yield f'handlers[{number}].handler: expected "module:function", got "{handler.handler}"'


def beside(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """Name the templates of a configuration by where they lie, unless it has a directory for them.

    Args:
        tree: As TOML has it; not checked yet, so anything may stand anywhere.
        path: Of the file that it was read from.
    """
    entries = tree.get("templates")
    if tree.get("template_dir") or not isinstance(entries, list):
        return tree
    return tree | {"templates": [_beside(entry, path.parent) for entry in entries]}


def _beside(entry: object, folder: Path) -> object:
    if not isinstance(entry, Mapping) or not isinstance(name := entry.get("template"), str) or not name:
        return entry
    return {**entry, "template": str(folder / name)}
