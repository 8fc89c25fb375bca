"""How a transfer ended, for people, for programs and for shells: a line, a JSON object, an exit status.

May know: the client's errors. Must not know: how anything is printed.
"""

from typing import TYPE_CHECKING, Any, Final

from snow_owl_tftp.errors import (
    TransferChanged,
    TransferDiskFull,
    TransferError,
    TransferRefused,
    TransferTimedOut,
    TransferUnreachable,
)

if TYPE_CHECKING:
    from snow_owl_tftp.client.transfer import TransferResult

__all__ = ["EXIT_STATUSES", "FAILED", "failure_record", "status_of", "success_record", "text_of"]

FAILED: Final = 1
"""Exit status of what has none of its own."""
_STATUS: Final[tuple[tuple[type[TransferError], str, int], ...]] = (
    (TransferRefused, "refused", 3),
    (TransferTimedOut, "timed out", 4),
    (TransferChanged, "changed", 5),
    (TransferDiskFull, "disk full", 6),
    (TransferUnreachable, "unreachable", 7),
)
EXIT_STATUSES: Final = (
    "Exit status: 0 done, 1 failed otherwise, 2 wrong usage, 3 refused by the server, 4 timed out, "
    "5 changed while it was sent, 6 disk full, 7 nothing listens on the server's port, 130 interrupted (128 and the "
    "number of any signal), 141 nobody reads the output. With several transfers: the first failure's."
)


def success_record(url: str, local: str | None, result: "TransferResult", digest: str | None) -> dict[str, Any]:
    """What `--json` prints of a transfer that went well.

    Args:
        url: As given.
        local: The local file's name; None: a stream.
        result: Of the client.
        digest: SHA-256 of the content; None: there is none to be had.
    """
    return {
        "url": url,
        "file": local,
        "bytes": result.payload_bytes,
        "seconds": round(result.seconds, 6),
        "options": result.options,
        "blksize": result.blksize,
        "windowsize": result.windowsize,
        "blocks": result.blocks,
        "retransmits": result.retransmits,
        "server": result.server,
        "sha256": digest,
    }


def failure_record(url: str, local: str | None, error: Exception) -> tuple[int, dict[str, Any]]:
    """The exit status of a transfer that failed, and what `--json` prints of it."""
    kind, status = status_of(error)
    record: dict[str, Any] = {"url": url, "file": local, "error": kind, "text": text_of(error)}
    if isinstance(error, TransferRefused):
        record["code"] = error.code
    return status, record


def status_of(error: Exception) -> tuple[str, int]:
    """The kind of a failure in a word or two, and its exit status."""
    from snow_owl_tftp.client.endings import is_no_room

    if isinstance(error, OSError) and is_no_room(error):
        return "disk full", 6
    return next(((name, code) for cls, name, code in _STATUS if isinstance(error, cls)), ("failed", FAILED))


def text_of(error: Exception) -> str:
    """For people: without the number of an errno."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
