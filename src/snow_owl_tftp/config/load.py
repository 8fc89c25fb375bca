"""Settings from a file, and with flags laid over them.

    snow-owl.toml ──load──► Settings ──override(flags)──► Settings

May know: TOML files and flat key paths. Must not know where a flag comes from.

Invariant: only checked settings leave this module.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from snow_owl_tftp.config.check import check, unknown_key
from snow_owl_tftp.config.legacy import drop_hints
from snow_owl_tftp.config.made import beside
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError

__all__ = ["load", "override"]


def load(path: str | Path, on_dropped: Callable[[list[str]], object] = lambda keys: None) -> Settings:
    """Read a TOML file.

    Args:
        path: The file; it need not set every key.
        on_dropped: Told the keys of the earlier Rust server that have no effect, none or all at once.

    Returns:
        Checked settings. Relative paths in them are relative to the working directory, those of templates to the file.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or says what may not be said.
    """
    import tomllib  # lazy: a server that is run by flags alone need not pay for it

    try:
        with Path(path).open("rb") as file:
            tree = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file, or give flags instead") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}; mend it there") from error
    tree, dropped = drop_hints(tree)
    settings = check(beside(tree, Path(path)), str(path))
    on_dropped(dropped)
    return settings


def override(settings: Settings, overrides: Mapping[str, object], *, source: str = "command line") -> Settings:
    """Lay flags over settings and check the whole again.

    Args:
        settings: They stay as they are.
        overrides: Key path ("workers", "write_config.enabled") to value. None means that the
            flag was not given and is skipped, as command-line parsers hand it over.
        source: Whom to name in an error.

    Raises:
        ConfigError: A key is unknown, a value out of range, or two contradict each other.
    """
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for path, value in overrides.items():
        if value is not None:
            *tables, key = path.split(".")
            table = tree
            for name in tables:
                table = table.setdefault(name, {})
                if not isinstance(table, dict):
                    raise ConfigError(f"{source}: {unknown_key(path)}")
            table[key] = value
    return check(tree, source)
