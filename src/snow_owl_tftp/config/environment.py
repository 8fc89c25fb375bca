"""Settings in environment variables: SNOW_OWL_TFTP__WRITE_CONFIG__ENABLED=true.

    environ ──layers_of_environment──► one layer a variable

The variable's name is the key's path in capitals, with two underscores for each dot. Its value is TOML where that is
what the key expects, and else the text as it is, so that nobody quotes a path twice.

May know: the schema's key paths and types. Must not read os.environ: whoever calls says which environment is meant.
"""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from snow_owl_tftp.config.layers import Layer, nested
from snow_owl_tftp.config.paths import is_table
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError

__all__ = ["PREFIX", "layers_of_environment"]

PREFIX: Final = "SNOW_OWL_TFTP__"


def layers_of_environment(environ: Mapping[str, str]) -> Iterator[Layer]:
    """Yield a layer for each variable of ours, by name, so that the order never depends on who set them."""
    for name in sorted(environ):
        if name.startswith(PREFIX):
            path = name.removeprefix(PREFIX).lower().replace("__", ".")
            tree = nested({path: _value(environ[name], _kind_of(path))}, ConfigError)
            yield Layer(tree, lambda parts, name=name: name)  # type: ignore[misc]


def _value(text: str, kind: Any) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        msgspec.convert(value, kind)
    except (ValueError, RecursionError):  # no TOML, or nothing that the key expects
        return text
    return value


def _kind_of(path: str) -> Any:
    """Return the declared type of a key; object, where there is no such key: the check refuses it by name."""
    kind: Any = Settings
    for part in path.split("."):
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)} if is_table(kind) else {}
        kind = fields.get(part, object)
    return kind
