"""One rule of a rewriting program, whatever it was written in.

    map file ─parse─┐
                    ├─► rules ─program─► what a name becomes
    [[rewrite]] ────┘

May know: text. Must not know how it is matched, or run anything.
"""

from dataclasses import dataclass

__all__ = ["Rule", "Source"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with a name that matches.

    Attributes:
        where: How an operator finds it: "line 7", "rewrite[2]".
        pattern: POSIX extended regular expression; None: always.
        replacement: What the match becomes, what the ERROR says, or which label is meant; escapes not yet read.
        rewrites: Replace the match.
        repeats: Replace again, from the begin of the name, until nothing matches.
        repeats_behind: Replace again, behind what was replaced last.
        ends: The name is final.
        ends_if_openable: The name is final if there is such a file; else this rule has done nothing.
        restarts: Go on with the first rule of the same source.
        denies: Refuse the request.
        jumps: Go on behind a label.
        is_inverse: It is for names that do not match.
        ignore_case: Letters match in both cases.
        is_strict: Unknown escapes of the pattern are errors.
        for_reads: RRQs are for it.
        for_writes: WRQs are for it.
        for_v4: Clients with an IPv4 address are for it.
        for_v6: Clients with an IPv6 address are for it.
        label: It is no rule but a place to jump to, of this name.
    """

    where: str
    pattern: bytes = b""
    replacement: bytes = b""
    rewrites: bool = False
    repeats: bool = False
    repeats_behind: bool = False
    ends: bool = False
    ends_if_openable: bool = False
    restarts: bool = False
    denies: bool = False
    jumps: bool = False
    is_inverse: bool = False
    ignore_case: bool = False
    is_strict: bool = False
    for_reads: bool = True
    for_writes: bool = True
    for_v4: bool = True
    for_v6: bool = True
    label: bytes | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Rules that belong together: a restart and a jump stay among them.

    Attributes:
        name: Of the file, for errors; empty: of the settings.
        rules: In their order.
    """

    name: str
    rules: tuple[Rule, ...]
