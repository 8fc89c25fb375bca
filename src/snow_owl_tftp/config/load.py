"""Settings as they are in force: a file, its drop-ins, the environment and flags, checked as a whole.

    files, environ, flags ──gather──► layers ──settle──► Settings

May know: TOML files, environment variables and flat key paths. Must not know where a flag comes from.

Invariant: only checked settings leave this module.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from snow_owl_tftp.config.check import check, unknown_key
from snow_owl_tftp.config.environment import layers_of_environment
from snow_owl_tftp.config.layers import Layer, laid_over, located, merged, nested, sets
from snow_owl_tftp.config.legacy import drop_hints
from snow_owl_tftp.config.made import beside
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError

__all__ = ["gather", "load", "override", "placed", "settle"]

_LINE: Final = re.compile(r"at line (\d+)")
"""As the parser of the standard library says it."""
_KEY_PATH: Final = re.compile(r"\w+(\[\d+\])?(\.\w+(\[\d+\])?)*")
_NOTHING: Mapping[str, Any] = {}


def load(
    path: str | Path | None,
    on_dropped: Callable[[list[str]], object] = lambda keys: None,
    *,
    environ: Mapping[str, str] = _NOTHING,
    flags: Mapping[str, object] = _NOTHING,
) -> Settings:
    """Read settings, and lay what is nearer to the operator over what is farther: a later one of these wins.

    Args:
        path: A TOML file, which need not set every key; behind it come the files `conf.d/*.toml` beside it, by name.
            None: no file.
        on_dropped: Told the keys of the earlier Rust server that have no effect, none or all at once.
        environ: Variables such as SNOW_OWL_TFTP__LOGGING__LEVEL; all others are ignored.
        flags: Key path ("workers", "write_config.enabled") to value; None means that the flag was not given.

    Returns:
        Checked settings. Relative paths in them are relative to the working directory, those of templates to the file.

    Raises:
        ConfigError: A file cannot be read, is not TOML, or says what may not be said; each problem names its place.
    """
    return settle(gather(path, on_dropped, environ=environ, flags=flags))


def gather(
    path: str | Path | None,
    on_dropped: Callable[[list[str]], object] = lambda keys: None,
    *,
    environ: Mapping[str, str] = _NOTHING,
    flags: Mapping[str, object] = _NOTHING,
) -> list[Layer]:
    """Read what `load` reads, and leave it apart: the weakest layer first. Arguments and errors are those of `load`."""
    layers, dropped = [], []
    files = list(_files(Path(path))) if path is not None else []
    texts = {file: _read(file) for file in files}
    nearer = list(layers_of_environment(environ))
    flag_tree = nested(flags, lambda key: ConfigError(f"command line: {unknown_key(key)}"))
    nearer.append(Layer(flag_tree, lambda parts: "command line"))
    trees = [*(tree for _, tree in texts.values()), *(layer.tree for layer in nearer)]
    has_dir = any(tree.get("template_dir") for tree in trees)
    for file, (text, whole) in texts.items():
        tree, hints = drop_hints(whole)
        dropped += hints
        layers.append(Layer(tree if has_dir else beside(tree, file), _place_in(file, text)))
    layers += nearer
    if files:
        on_dropped(dropped)
    return layers


def settle(layers: Sequence[Layer]) -> Settings:
    """Merge layers and check the whole.

    Raises:
        ConfigError: As `load` does.
    """
    return check(merged(layers), lambda key: located(layers, key))


def placed(error: ConfigError, layers: Sequence[Layer]) -> ConfigError:
    """Say where the keys stand that an error of the start names.

    Args:
        error: Each of its lines begins with a key path; any other line stays as it is.
        layers: Of the settings.
    """
    return ConfigError("\n".join(_placed(line, layers) for line in str(error).splitlines()))


def _placed(line: str, layers: Sequence[Layer]) -> str:
    path = line.partition(": ")[0]
    return f"{located(layers, path)}: {line}" if _KEY_PATH.fullmatch(path) and sets(layers, path) else line


def override(settings: Settings, overrides: Mapping[str, object], *, source: str = "command line") -> Settings:
    """Lay values over settings and check the whole again.

    Args:
        settings: They stay as they are.
        overrides: Key path ("workers", "write_config.enabled") to what takes the place of its value, a list too. None
            means that nothing was given.
        source: Whom to name in an error.

    Raises:
        ConfigError: A key is unknown, a value out of range, or two contradict each other.
    """
    tree = nested(overrides, lambda key: ConfigError(f"{source}: {unknown_key(key)}"))
    return check(laid_over(msgspec.to_builtins(settings), tree), source)


def _files(path: Path) -> Iterator[Path]:
    yield path
    folder = path.parent / "conf.d"
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - Path.glob takes one that may not be read for an empty one
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}; make it readable, or remove it") from error
    yield from (folder / name for name in names if name.endswith(".toml") and not name.startswith("."))


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    import tomllib  # lazy: a server that is run by flags alone need not pay for it

    try:
        text = path.read_bytes().decode()
        return text, tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file, or give flags instead") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        line = _LINE.search(str(error))
        place = f"{path}:{line[1]}" if line else str(path)
        raise ConfigError(f"{place}: not TOML: {error}; mend it there") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or so many brackets
        raise ConfigError(f"{path}: not TOML: {error}; mend it there") from error


def _place_in(path: Path, text: str) -> Callable[[Sequence[str | int]], str]:
    def where(parts: Sequence[str | int]) -> str:
        from snow_owl_tftp.config.lines import line_of  # lazy: only for what is refused or shown

        return f"{path}:{line_of(text, parts)}" if parts else str(path)

    return where
