"""What all tables of the settings share. May know: msgspec."""

from msgspec import Struct

__all__ = ["Table"]


class Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """No key that is not declared.

    `frozen=True` is repeated in each only because mypy does not see it inherited.
    """
