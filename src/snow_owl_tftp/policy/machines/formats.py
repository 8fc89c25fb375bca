"""An inventory's bytes to its tables, by the ending of the file's name.

    machines.toml  [[machine]]              machines.json  {"machine": [...]} or [...]
    machines.yaml  machine: [...] or [...]  machines.csv   mac,address,serial,uuid,name,group,arch,vars.KEY

May know: bytes and endings. Must not open a file, or know what a machine is.
Invariant: what is no such file is a ConfigError that says where.
"""

from collections.abc import Callable, Mapping
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.machines.entries import IDENTITIES, TEXTS, Entry, entries_of
from snow_owl_tftp.policy.machines.yaml_texts import MissingLibraryError, texts_of

__all__ = ["read_inventory"]

_VARS: Final = "vars."


def read_inventory(data: bytes, path: str) -> list[Entry]:
    """Read an inventory.

    Args:
        data: The whole file.
        path: Its ending says how it is written; also whom to name in an error.

    Raises:
        ConfigError: It is not written so, or holds nonsense.
    """
    ending = path.rpartition(".")[2].lower()
    read = _FORMATS.get(ending)
    if read is None:
        raise ConfigError(
            f"{path}: an inventory is TOML, YAML, JSON or CSV; end its name with .toml, .yaml, .json or .csv"
        )
    try:
        tree = read(data)
    except MissingLibraryError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:  # of each reader; RecursionError: nested without end
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: not {ending.upper()}: {said}; mend it there") from error
    return entries_of(_tables(tree, path), path)


def _tables(tree: object, path: str) -> object:
    if not isinstance(tree, dict):
        return tree
    for key in tree:
        if key != "machine":
            raise ConfigError(f"{path}: {key}: unknown key; every machine is a [[machine]]")
    return tree.get("machine", [])


def _toml(data: bytes) -> object:
    import tomllib  # lazy: most servers have no inventory

    return tomllib.loads(data.decode("utf-8"))


def _json(data: bytes) -> object:
    import msgspec

    return msgspec.json.decode(data) if data.strip() else []


def _yaml(data: bytes) -> object:
    tree = texts_of(data)
    return [] if tree is None or tree == "" else tree


def _csv(data: bytes) -> object:
    import csv

    lines = data.decode("utf-8-sig").splitlines(keepends=True)
    rows = csv.reader(lines, strict=True)
    header: list[str] = []
    tables = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith("#"):
                continue
            if not header:
                header = _header(cells)
            elif len(cells) > len(header):
                raise ValueError(f"line {rows.line_num}: {len(cells)} cells under {len(header)} columns")
            else:
                tables.append(_of_row(header, cells))
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
    return tables


def _header(cells: list[str]) -> list[str]:
    known = (*IDENTITIES, *TEXTS)
    for cell in cells:
        if cell not in known and not cell.startswith(_VARS):
            raise ValueError(f'column "{cell[:40]}" is none of {", ".join(known)} or {_VARS}KEY')
        if cells.count(cell) > 1:
            raise ValueError(f'column "{cell[:40]}" stands there twice')
    return cells


def _of_row(header: list[str], cells: list[str]) -> dict[str, object]:
    """A cell of what a machine is found by holds one text, or several with blanks or ";" between."""
    table: dict[str, object] = {}
    variables: dict[str, str] = {}
    for column, cell in zip(header, cells, strict=False):
        if not cell:
            continue
        if column.startswith(_VARS):
            variables[column.removeprefix(_VARS)] = cell
        else:
            table[column] = cell.replace(";", " ").split() if column in IDENTITIES else cell
    return {**table, "vars": variables}


_FORMATS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "toml": _toml,
    "json": _json,
    "yaml": _yaml,
    "yml": _yaml,
    "csv": _csv,
}
