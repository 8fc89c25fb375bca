r"""Replacements: what a match is replaced by, what an ERROR says, which label is meant.

    rb"/machines/\x/\L\1" ──parse──► parts ──expand(match, client)──► b"/machines/C0000222/boot"

    \0 the whole match   \1…\9 a group   \i the client's address   \x the same in hex   \L \U \E lower, upper, as it is
    \c any other c is c itself

May know: bytes, and a client's address. Must not know expressions.

Invariants:
- A group that does not exist, or took no part in the match, is empty: maps in the wild count on it.
- Only letters of ASCII change their case, since names are bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ["Client", "Replacement"]

_WORK_OF_A_MACRO: Final = 8
"""An address is spelled anew, which takes longer than to put it in its place."""
_CASES: Final[dict[bytes, Callable[[bytes], bytes]]] = {b"L": bytes.lower, b"U": bytes.upper, b"E": bytes}


@dataclass(frozen=True)
class Client:
    """Who asks, as far as a rewrite may look.

    Attributes:
        host: Its address as text; an IPv4 one that came in by an IPv6 socket (::ffff:…) counts as IPv4.
    """

    host: str

    @cached_property
    def _address(self) -> object:
        address = ip_address(self.host.partition("%")[0])
        return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address

    @property
    def is_v6(self) -> bool:
        """Whether rules for IPv6 are for it."""
        return isinstance(self._address, IPv6Address)

    @property
    def text(self) -> bytes:
        r"""What \i stands for."""
        return str(self._address).encode()

    @property
    def hex(self) -> bytes:
        r"""What \x stands for: 8 or 32 digits, letters in upper case."""
        packed: bytes = self._address.packed  # type: ignore[attr-defined]
        return packed.hex().upper().encode()


class Replacement:
    """A text with escapes, compiled once.

    Attributes:
        text: As written.
        groups: Numbers of the groups that it names, 0 left out.
        asks_for_client: What it gives differs from client to client.
        is_plain: It gives the same whatever matched.
        work: What it takes to fill it in, in half a microsecond.
    """

    def __init__(self, text: bytes) -> None:
        """Compile it; every text is one."""
        self.text = text
        self._parts: list[tuple[bytes, int | bytes]] = []  # case; a group's number or a text, b"i" or b"x" escaped
        self._macros: list[tuple[int, bytes]] = []
        self._parse()
        numbers = {part for _, part in self._parts if isinstance(part, int)}
        self.groups = frozenset(numbers - {0})
        self.asks_for_client = bool(self._macros)
        self.is_plain = not numbers and not self._macros
        self.work = 1 + len(self._parts) // 2 + _WORK_OF_A_MACRO * len(self._macros)

    def _parse(self) -> None:
        case, at, text = b"E", 0, self.text
        while at < len(text):
            char = text[at : at + 1]
            escaped = text[at + 1 : at + 2] if char == b"\\" else b""
            at += 1 + len(escaped)
            if escaped in _CASES:
                case = escaped
            elif escaped.isdigit():
                self._parts.append((case, int(escaped)))
            elif escaped in (b"i", b"x"):
                self._macros.append((len(self._parts), escaped))
                self._parts.append((case, b""))
            else:
                self._append(case, _CASES[case](escaped or char))

    def _append(self, case: bytes, text: bytes) -> None:
        """Add a text, to one that stands before it if that is none of a macro."""
        before = self._parts[-1][1] if self._parts else None
        if isinstance(before, bytes) and before:
            self._parts[-1] = case, before + text
        else:
            self._parts.append((case, text))

    def expand(self, groups: Sequence[bytes], client: Client) -> bytes:
        """Fill it in.

        Args:
            groups: What matched: the whole, then by number; those that are missing are empty.
            client: Who asks.
        """
        parts = self._parts
        if self._macros:
            parts = parts.copy()
            for at, macro in self._macros:
                case = parts[at][0]
                parts[at] = case, _CASES[case](client.text if macro == b"i" else client.hex)
        return b"".join(
            part if isinstance(part, bytes) else _CASES[case](groups[part]) if part < len(groups) else b""
            for case, part in parts
        )
