"""What a name meant, one meaning after another: the server's own way through them, listened to.

    FileDecider ─► Walk, a Meanings ─► notes each path, what the rules said of it, and why the next is tried

May know: `Meanings`. Must not decide: every answer is that of the class above.
"""

from msgspec import Struct

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.decision import ReadDecision
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.meanings import Meanings
from snow_owl_tftp.server.other_names import OtherNames
from snow_owl_tftp.server.verdict import IncomingRequest

__all__ = ["Step", "Walk"]


class Step(Struct):
    """One meaning.

    Attributes:
        paths: In its spellings, before the rules have seen them; empty: it cannot be a path.
        way: How it was come by.
        decision: What the rules say; None: they refuse it.
        refusal: Of the rules, or of whoever looked for the file; None: it is served.
    """

    paths: tuple[bytes, ...]
    way: str
    decision: ReadDecision | None = None
    refusal: RefusedError | None = None


class Walk(Meanings):
    """Meanings that remember.

    Attributes:
        steps: In their order.
    """

    __slots__ = ("_of_name", "steps")

    def __init__(self, incoming: IncomingRequest, request: Request, generation: Generation) -> None:
        self.steps: list[Step] = []
        self._of_name = "sent"
        super().__init__(incoming, request, generation)

    def next(self, refusal: RefusedError, other_names: OtherNames) -> RefusedError | None:
        """See Meanings.next."""
        self.steps[-1].refusal = refusal
        return super().next(refusal, other_names)

    def _decide_about(self, name: str) -> RefusedError | None:
        self._of_name = "sent" if name == self.request.filename else "rewritten"
        known = len(self.steps)
        refusal = super()._decide_about(name)
        if len(self.steps) == known:
            self.steps.append(Step((), self._of_name, None, refusal))
        return refusal

    def _decide(self, paths: tuple[bytes, ...]) -> RefusedError | None:
        refusal = super()._decide(paths)
        decision = self.decision if refusal is None else None
        self.steps.append(Step(paths, self.way or self._of_name, decision, refusal))
        return refusal
