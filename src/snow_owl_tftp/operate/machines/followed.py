"""A file that others write and we look at again and again: what a look is, and what comes of it.

May know: words only, so that a server without machines need not load the rest.
"""

from typing import NamedTuple, Protocol

__all__ = ["FollowOutcome", "FollowedFile", "Told"]


class Told(NamedTuple):
    """A line for the log: "info", "warning" or "error", what happened, and its fields."""

    level: str
    event: str
    fields: dict[str, object]


class FollowOutcome(NamedTuple):
    """What a look has found.

    Attributes:
        told: What to tell.
        again_s: When to look again although nobody says that the file has changed; None: when it suits.
    """

    told: tuple[Told, ...] = ()
    again_s: float | None = None


class FollowedFile(Protocol):
    """A file that is looked at again and again."""

    @property
    def path(self) -> str:
        """Absolute."""

    def look(self) -> FollowOutcome:
        """Find out what is new, and learn it; raises nothing. Runs in a thread."""

    def close(self) -> None:
        """Give up what is open, without waiting; a look that is under way does it at its end."""
