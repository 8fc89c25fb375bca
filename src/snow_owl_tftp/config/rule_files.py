"""Files of rules that settings name: read whole, once a configuration.

May know: paths and sizes. Must not know what is in them.
"""

from pathlib import Path
from typing import Final

from snow_owl_tftp.errors import ConfigError

__all__ = ["MAX_FILE_BYTES", "read_rule_file"]

MAX_FILE_BYTES: Final = 1 << 20
"""Nobody writes so many rules by hand; a log or an image named by mistake is larger."""


def read_rule_file(path: str | Path, key: str = "") -> bytes:
    """Read a file; may wait for its disk, so the event loop must not call it while it serves.

    Args:
        path: Of the file; a relative one is relative to the working directory.
        key: The setting that names it, for an error; empty: none does.

    Raises:
        ConfigError: It cannot be read, or is larger than MAX_FILE_BYTES.
    """
    named = f"{key}: {path}" if key else str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{named}: {error.strerror}; name a readable file") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{named}: more than {MAX_FILE_BYTES} bytes, which no file of rules has; name another one")
    return content
