"""Keys of the earlier Rust server of this name (usg-tftp) that have no place here: which are dropped, which refused.

    tree of a TOML file ──drop_hints──► the tree without them, and their names for one warning

Its users bring their files along, and its chart writes every key whatever its value. So what is off, or
only a hint about how to do the same work, is dropped. What a client or an operator would miss stays in
the tree and is refused, with what to do instead.

May know: keys and values as TOML has them. Must not know our own settings, or open anything.
"""

import copy
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["drop_hints", "remedy_of"]

_REFUSED: Final = {
    "multicast": "this version serves no multicast; set multicast.enabled = false",
    "web": "this version has no web interface; remove the table, and serve files for people with a web server",
}
"""Key, or table of them, to what to do instead."""

_HINTS: Final = {
    "performance.default_block_size": "512 unless the client asks for blksize",
    "performance.default_windowsize": "the client asks; options.max_windowsize_blocks is the cap",
    "performance.buffer_pool_size": "",
    "performance.streaming_threshold": "",
    "performance.audit_sampling_rate": "every event is audited",
    "performance.platform.socket.reuse_address": "",
    "performance.platform.socket.reuse_port": "workers share a port by themselves",
    "performance.platform.file_io.use_sequential_hint": "",
    "performance.platform.file_io.use_willneed_hint": "",
    "performance.platform.file_io.fadvise_dontneed_after": "",
    "performance.platform.zero_copy": "",
    "performance.platform.worker_pool": "workers = N instead",
}
"""The same for what is dropped; empty where there is nothing to do."""

_LEVELS: Final = {
    "off": "error",
    "error": "error",
    "warn": "warning",
    "info": "info",
    "debug": "debug",
    "trace": "debug",
}
"""Its levels, quietest first, and ours."""
_SYNONYMS: Final = ("error", "warn", "info", "debug")
"""Levels that mean the same: no word about them is needed."""
_OWN_TARGETS: Final = ("usg_tftp", "snow_owl")
"""How the names of its own crates begin, in a filter such as "warn,usg_tftp=debug"."""


def drop_hints(tree: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Take out what changes nothing.

    Args:
        tree: A TOML file; it stays as it is.

    Returns:
        The tree without those keys, and with our word for a level of theirs; what was dropped or is read as
        something else, each with a note if there is something to say.
    """
    tree, notes = copy.deepcopy(tree), []
    if _is_off(tree.get("multicast")):
        del tree["multicast"]
        notes.append("multicast")
    for path, note in _HINTS.items():
        if _take_out(tree, path.split(".")):
            notes.append(f"{path} ({note})" if note else path)
    notes += _translate_level(tree.get("logging"))
    return tree, notes


def remedy_of(path: str) -> str | None:
    """Return what to do about a key that is refused, or None: nobody knows it."""
    for refused, remedy in (*_REFUSED.items(), *_HINTS.items()):
        if path == refused or path.startswith(refused + "."):
            return remedy or "has no effect; remove it"
    return None


def _is_off(table: object) -> bool:
    return isinstance(table, dict) and table.get("enabled", False) is False


def _take_out(table: object, parts: list[str]) -> bool:
    """Remove a key, and say whether it was there."""
    for part in parts[:-1]:
        table = table.get(part) if isinstance(table, dict) else None
    return isinstance(table, dict) and table.pop(parts[-1], None) is not None


def _translate_level(logging: object) -> list[str]:
    """Put our level for a filter of theirs; what is neither stays, to be refused with what was expected."""
    theirs = logging.get("level") if isinstance(logging, dict) else None
    if not isinstance(logging, dict) or not isinstance(theirs, str):
        return []
    levels = list(_levels_of(theirs.lower()))
    if not levels or not all(level in _LEVELS for _, level in levels):
        return []
    ours = [level for target, level in levels if not target or target.startswith(_OWN_TARGETS)]
    loudest = max(ours or [level for _, level in levels], key=list(_LEVELS).index)
    logging["level"] = _LEVELS[loudest]
    return [] if theirs.lower() in _SYNONYMS else [f'logging.level = "{theirs}" (read as "{_LEVELS[loudest]}")']


def _levels_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield (target, level) of every directive; the target of a bare level is empty."""
    for directive in text.split(","):
        target, equals, level = directive.strip().rpartition("=")
        yield (target if equals else "", level)
