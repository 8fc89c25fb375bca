"""What is asked, and what is told: words only.

May know: machines, as they are told. Must not decide anything.
"""

from msgspec import Struct

from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.protocol.packets import Option

__all__ = ["Explanation", "MeaningTried", "Question", "Rewriting", "RootTried", "RulePassed", "TemplateUsed"]


class Question(Struct, frozen=True):
    """One request.

    Attributes:
        client: Its address.
        listen: Ours that is asked, and its port.
        name: As the client sends it.
        is_write: WRQ, not RRQ.
        options: Likewise as sent.
        mac: Of the machine, taken for proved; None: as the server would find it.
        after: Path of the file that the client has received last, for second stages; empty: none.
        shows: Whether what a template makes is wanted.
    """

    client: str
    listen: tuple[str, int]
    name: str
    is_write: bool = False
    options: tuple[Option, ...] = ()
    mac: str | None = None
    after: str = ""
    shows: bool = False


class Rewriting(Struct, frozen=True):
    """A step of a rewriting rule: where that stands, and what it did."""

    where: str
    deed: str


class RulePassed(Struct, frozen=True):
    """A rule that does not fit, and the key of the condition that does not hold."""

    rule: int
    unmet: str


class RootTried(Struct, frozen=True):
    """A root in which the name was looked for, and what came of it."""

    root: str
    result: str


class MeaningTried(Struct):
    """One of the things that the name may mean, in the order in which the server tries them.

    Attributes:
        names: Paths that are looked for: as sent, and without what hangs behind it.
        way: "sent", "rewritten", "spelling", "case" or "sibling".
        passed: Rules before the one that decides.
        rule: That one; 0: none.
        roots: Those that were looked through.
        result: Why the next meaning is tried, or nothing is served; empty: this is what is served.
    """

    names: list[str] = []
    way: str = "sent"
    passed: list[RulePassed] = []
    rule: int = 0
    roots: list[RootTried] = []
    result: str = ""


class TemplateUsed(Struct):
    """A template that makes what is sent.

    Attributes:
        template: As the entry has it.
        variables: What its pattern captured.
        output: The text; None: it was not asked for, or could not be made.
    """

    template: str
    variables: dict[str, str]
    output: str | None = None


class Explanation(Struct):
    """What the server would do.

    Attributes:
        is_served: It would become a transfer; None: a handler says, and handlers are not called here. Then all the rest
            is what happens where that returns None.
        answer: In a few words.
        error: Code of the ERROR; None: there is none.
        why: What the log would say beside it.
        is_optional: The ERROR is for an optional file that is missing.
        machine: Who asks; None: nobody that is known.
        seeks_machine: Whether the server would look who it is.
        rewriting: Steps of rules that rewrite names.
        meanings: What the name may mean, up to what is answered.
        rule: That which decides about what is answered; 0: none.
        handler: "module:function" that is asked first; empty: none.
        template: What makes the content; None: it is a file.
        file: The real path of what is read; of an upload the path that it would get.
        size_bytes: Of what is read; None: it is not known.
        options: Granted.
        limits: Settings that bound such a transfer, by key; those that are off are left out.
        for_all: The engine may give the same answer to everybody.
        notes: What could not be found out.
    """

    is_served: bool | None = False
    answer: str = ""
    error: int | None = None
    why: str = ""
    is_optional: bool = False
    machine: Machine | None = None
    seeks_machine: bool = False
    rewriting: list[Rewriting] = []
    meanings: list[MeaningTried] = []
    rule: int = 0
    handler: str = ""
    template: TemplateUsed | None = None
    file: str = ""
    size_bytes: int | None = None
    options: dict[str, str] = {}
    limits: dict[str, int] = {}
    for_all: bool = False
    notes: list[str] = []
