"""Settings as TOML: values on one line each, so that a remark fits behind them.

    key, value, remark ──line_of_key──► 'workers = 2  # snow-owl.toml:3'

May know: what TOML has. Must not know any key.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["line_of_key", "text_of"]

_DELETE: Final = "\x7f"
"""The one character that JSON has in a string and TOML has not."""


def text_of(value: Any) -> str:
    """Write a value: a text, number, truth, list, or table on one line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(_DELETE, "\\u007f")
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {text_of(one)}" for key, one in value.items() if one is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(text_of(one) for one in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def line_of_key(key: str, value: Any, remark: str = "") -> str:
    """Write a key and its value, and what is to be said about it."""
    return f"{key} = {text_of(value)}" + (f"  # {remark}" if remark else "")


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else text_of(key)
