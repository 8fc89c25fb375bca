r"""Events as records of the standard library's `logging`, for programs that embed the server.

    log_event(INFO, "request refused", {"peer": …})  ─►  logging.getLogger("snow_owl_tftp")
        record.getMessage()          request refused peer=192.0.2.7:2070 file=a\nb
        record.event, record.peer    the same as attributes, as they came

May know text. Must not set `logging` up: handlers and levels are the program's.
Invariant: the message is one line, whatever name a peer chose.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from snow_owl_tftp.observe.lines import escape_name

__all__ = ["log_event"]

_LOG: Final = logging.getLogger("snow_owl_tftp")
_TAKEN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event"}
"""Attributes that a field may not set; `logging` raises KeyError for most."""


def log_event(level: int, event: str, fields: Mapping[str, Any], exc_info: Any = None) -> None:
    """Write a record: a line for people, and the same as attributes for whoever formats records himself.

    Args:
        level: Of `logging`.
        event: What happened, always the same words.
        fields: About what.
        exc_info: As for `logging`.
    """
    if not _LOG.isEnabledFor(level):
        return
    extra = {f"{key}_" if key in _TAKEN else key: value for key, value in fields.items()}
    text = " ".join(f"{key}={escape_name(str(value))}" for key, value in fields.items())
    _LOG.log(level, "%s", f"{event} {text}".rstrip(), exc_info=exc_info, extra={**extra, "event": event})
