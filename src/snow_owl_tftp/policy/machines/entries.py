"""What an inventory may hold: tables of texts to entries, or every problem with the number of its entry.

    [{"mac": "52:54:00:12:34:56", "name": "lathe", "vars": {"console": "ttyS0"}}] ──entries_of──► [Entry]

May know: tables, however they were written. Must not know files, or who asks.

Invariants:
- An unknown key is an error, as in the settings; a MAC, address, serial, UUID or name that two entries have is one too.
- What stands for a machine can stand in a path: no "/", no leading dot, no control character.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.machines.spellings import is_link_local, is_station, parse_address, parse_mac, parse_uuid

__all__ = ["IDENTITIES", "MAX_ENTRIES", "TEXTS", "Entry", "entries_of"]

MAX_ENTRIES: Final = 100_000
"""A bound on memory: with two variables each they take 120 MB."""
_MAX_TOLD: Final = 10
"""Problems of one file; the rest is told by number."""
_MAX_TEXT: Final = 255
_MAX_VALUE: Final = 4096
IDENTITIES: Final = ("mac", "address", "serial", "uuid")
"""Keys by which a machine is found; one text or a list of them."""
TEXTS: Final = ("name", "group", "arch")
_KEYS: Final = (*IDENTITIES, *TEXTS, "vars")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_TAKEN: Final = frozenset(
    (*_KEYS, "macs", "mac_dashes", "mac_plain", "address_hex", "server_address", "known_by", "source")
)
"""Names that stand for something else wherever variables are filled in."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f/\\]|\A\.|\A\Z")


class Entry(Struct, frozen=True, gc=False):
    """One machine as the operator wrote it down.

    Attributes:
        number: Of the entry in its file, from 1.
        macs: As `parse_mac` spells them.
        addresses: As `parse_address` spells them.
        serials: As written.
        uuids: As `parse_uuid` spells them.
        name: Unique in the file; None: it has none.
        group: Or None.
        arch: Or None.
        vars: Whatever templates and rules want of it.
    """

    number: int
    macs: tuple[str, ...]
    addresses: tuple[str, ...]
    serials: tuple[str, ...]
    uuids: tuple[str, ...]
    name: str | None
    group: str | None
    arch: str | None
    vars: dict[str, str]


def entries_of(tables: object, source: str) -> list[Entry]:
    """Check the tables of an inventory, whole.

    Args:
        tables: A list of tables.
        source: Whom to name in an error.

    Raises:
        ConfigError: Something is no machine, or two are one; a line for each of the first ten problems.
    """
    if not isinstance(tables, list):
        raise ConfigError(f"{source}: machine: expected a list of tables, as [[machine]] makes it")
    if len(tables) > MAX_ENTRIES:
        raise ConfigError(f"{source}: {len(tables)} machines; at most {MAX_ENTRIES}")
    entries: list[Entry] = []
    problems: list[str] = []
    owners: dict[tuple[str, str], int] = {}
    for number, table in enumerate(tables, 1):
        try:
            entry = _entry_of(number, table)
        except _NonsenseError as error:
            problems.append(f"{source}: entry {number}: {error}")
            continue
        entries.append(entry)
        problems += [f"{source}: entry {number}: {problem}" for problem in _doubles(entry, owners)]
    if problems:
        told = problems[:_MAX_TOLD]
        if len(problems) > _MAX_TOLD:
            told.append(f"{source}: and {len(problems) - _MAX_TOLD} more problems")
        raise ConfigError("\n".join(told))
    return entries


class _NonsenseError(ValueError):
    """One entry cannot be used; says why."""


def _entry_of(number: int, table: object) -> Entry:
    if not isinstance(table, dict):
        raise _NonsenseError(f"expected a table, got {_shown(table)}")
    for key in table:
        if key not in _KEYS:
            raise _NonsenseError(_unknown(key))
    macs, addresses, serials, uuids = (_identities(key, table.get(key), read) for key, read in _READERS.items())
    if not (macs or addresses or serials or uuids):
        raise _NonsenseError("names no machine; give it a mac, address, serial or uuid")
    name, group, arch = (_text(key, table.get(key)) for key in TEXTS)
    return Entry(number, macs, addresses, serials, uuids, name, group, arch, _vars(table.get("vars")))


def _identities(key: str, value: object, read: Callable[[str], str]) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (read(value),)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _NonsenseError(f"{key}: expected a text or a list of texts in quotes, got {_shown(value)}")
    return tuple(dict.fromkeys([read(text) for text in value]))


def _mac(text: str) -> str:
    mac = parse_mac(text)
    if mac is None:
        raise _NonsenseError(f'mac: expected six octets such as "52:54:00:12:34:56", got {_shown(text)}')
    if not is_station(mac):
        raise _NonsenseError(f"mac: {mac} is a group's or nobody's; give that of the machine's card")
    return mac


def _address(text: str) -> str:
    address = parse_address(text)
    if address is None:
        raise _NonsenseError(f'address: expected one address such as "192.0.2.7" or "2001:db8::7", got {_shown(text)}')
    if is_link_local(address):
        raise _NonsenseError(f"address: {address} is another machine on every link; give its mac instead")
    return address


def _uuid(text: str) -> str:
    uuid = parse_uuid(text)
    if uuid is None or not uuid.strip("0-") or not uuid.strip("f-"):
        raise _NonsenseError(
            f'uuid: expected that of one machine, such as "03020100-0504-0706-0809-0a0b0c0d0e0f", got {_shown(text)}'
        )
    return uuid


def _serial(text: str) -> str:
    return _fit("serial", text)


_READERS: Final[Mapping[str, Callable[[str], str]]] = {
    "mac": _mac,
    "address": _address,
    "serial": _serial,
    "uuid": _uuid,
}


def _text(key: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _NonsenseError(f"{key}: expected a text in quotes, got {_shown(value)}")
    return _fit(key, value)


def _fit(key: str, text: str) -> str:
    """What may become a part of a path, since roots are made of it."""
    if _UNFIT.search(text) or len(text) > _MAX_TEXT:
        raise _NonsenseError(
            f'{key}: expected 1..{_MAX_TEXT} characters without "/", "\\", control characters or a leading dot, '
            f"got {_shown(text)}"
        )
    return text


def _vars(table: object) -> dict[str, str]:
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise _NonsenseError(f"vars: expected a table, got {_shown(table)}")
    return {_variable(key): _value(key, value) for key, value in table.items()}


def _variable(key: object) -> str:
    if not isinstance(key, str) or _VARIABLE.fullmatch(key) is None:
        raise _NonsenseError(f"vars: expected a name of letters, digits and underscores, got {_shown(key)}")
    if key in _TAKEN:
        raise _NonsenseError(f"vars.{key}: the name has a meaning of its own; choose another one")
    return key


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str) or len(value) > _MAX_VALUE or "\0" in value:
        raise _NonsenseError(f"vars.{key}: expected a text of at most {_MAX_VALUE} characters, got {_shown(value)}")
    return value


def _doubles(entry: Entry, owners: dict[tuple[str, str], int]) -> Iterator[str]:
    """Note what an entry is found by, and yield what another one has already."""
    named = [("name", entry.name)] if entry.name is not None else []
    found = [
        *(("mac", mac) for mac in entry.macs),
        *(("address", address) for address in entry.addresses),
        *(("serial", serial.casefold()) for serial in entry.serials),
        *(("uuid", uuid) for uuid in entry.uuids),
        *named,
    ]
    for key in found:
        other = owners.setdefault(key, entry.number)
        if other != entry.number:
            yield f"{key[0]}: entry {other} has {_shown(key[1])} too; remove it from one of them"


def _unknown(key: object) -> str:
    import difflib  # lazy: only for a file that is refused

    near = difflib.get_close_matches(str(key), _KEYS, n=1)
    where = f"did you mean {near[0]}?" if near else "what is yours goes into vars"
    return f"{_shown(key)[1:-1]}: unknown key; {where}"


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= 60 else text[:57] + "..."
