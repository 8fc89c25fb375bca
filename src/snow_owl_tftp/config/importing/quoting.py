"""Words of a command line, as a shell takes it apart. May know: quotes. Must not run a shell."""

import shlex

from snow_owl_tftp.errors import ConfigError

__all__ = ["words_of"]


def words_of(text: str, place: str) -> list[str]:
    """Take a command line apart.

    Raises:
        ConfigError: A quote has no end.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}; mend it there") from None
