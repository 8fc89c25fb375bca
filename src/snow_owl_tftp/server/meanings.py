"""What the name of one RRQ may mean, one meaning after another, until one can be opened.

    name ─rewritten to─► names, of which the first that can be opened is meant
                            └─ none is there ─► what else the last of them may mean (other_names)
    each meaning ─policy─► a decision, which whoever opens it tries; or the refusal that is answered in the end

May know: rewriting, policy, how names are spelled. Must not open anything.

Invariants:
- Each meaning is decided about anew, as if it had been sent: no spelling is a way round a rule.
- Of names that were rewritten, one that is refused is as one that cannot be opened. What else a name may mean is looked
  at only where there is no such file.
- Used by the event loop, then by one thread at a time.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec

from snow_owl_tftp.content.refusals import RequirementError
from snow_owl_tftp.errors import OptionalMissingError, RefusedError
from snow_owl_tftp.policy.decision import DeniedError, ReadDecision
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.charging import charge
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.other_names import OtherNames, Way
from snow_owl_tftp.server.rewriting import tell_rewritten
from snow_owl_tftp.server.roots import places_of, plain_paths
from snow_owl_tftp.server.sources import Sources
from snow_owl_tftp.server.verdict import IncomingRequest

__all__ = ["Meanings"]

_NOTHING: Final[Iterator[tuple[bytes, Way]]] = iter(())


class Meanings:
    """A request on its way through what its name may mean, and the configuration that it is answered by although a
    reload comes between.

    Attributes:
        incoming: The request.
        request: The same, parsed.
        generation: Of the configuration.
        decision: What the rules allow, of the meaning that it has got to.
        way: How that was come by; None: it was sent, or rewritten, so. Where none is left, that of the last.
        holds_for_all: It is the first meaning, and would be for every client at every time.
        sources: The directories of that configuration: what its rules allow is opened in no others. Set by whoever
            opens it.
    """

    __slots__ = (
        "_at",
        "_names",
        "_others",
        "_refusal",
        "_rewritten",
        "decision",
        "generation",
        "holds_for_all",
        "incoming",
        "request",
        "sources",
        "way",
    )

    decision: ReadDecision
    sources: Sources
    _refusal: RefusedError

    def __init__(self, incoming: IncomingRequest, request: Request, generation: Generation) -> None:
        self.incoming = incoming
        self.request = request
        self.generation = generation
        self.way: Way | None = None
        self._at = 0
        self._others: Iterator[tuple[bytes, Way]] | None = None
        rewrites = generation.rewrites
        if rewrites is None:
            self._rewritten = None
            self._names: tuple[str, ...] = (request.filename,)
            self.holds_for_all = True
        else:
            self._rewritten = rewrites.apply(request.filename, incoming.peer[0], is_write=False)
            self._names = self._rewritten.names
            self.holds_for_all = self._rewritten.holds_for_all

    def first(self, other_names: OtherNames) -> RefusedError | None:
        """Turn to the first meaning; as `next`."""
        if not self._names:
            assert self._rewritten is not None, "a request has a name"
            return self._rewritten.refusal()
        refusal = self._decide_about(self._names[0])
        return None if refusal is None else self._next(refusal, other_names)

    def next(self, refusal: RefusedError, other_names: OtherNames) -> RefusedError | None:
        """Turn to the next meaning that the rules allow; may run in a thread.

        Args:
            refusal: Of the one before.
            other_names: What a name may mean beside what it says.

        Returns:
            None: `decision` is about another meaning now. Otherwise what to answer.
        """
        self.holds_for_all = False  # the one before may appear
        if isinstance(refusal, RequirementError):
            refusal = DeniedError(refusal.code, refusal.text, self.decision.rule, why=refusal.why)
        return self._next(refusal, other_names)

    def _next(self, refusal: RefusedError, other_names: OtherNames) -> RefusedError | None:
        if self._others is None:
            while self._at + 1 < len(self._names):
                self._at += 1
                # What rules refuse to one, others may be granted.
                self.holds_for_all = self.holds_for_all and self.generation.policy.rules is None
                turned = self._decide_about(self._names[self._at])
                if turned is None:
                    return None
                refusal = turned
            refusal = self._of_rewritten(refusal)
        if refusal.code != ErrorCode.FILE_NOT_FOUND:
            return refusal
        return self._next_other(refusal, other_names)

    def _of_rewritten(self, refusal: RefusedError) -> RefusedError:
        """What is answered where no name that it was rewritten to can be opened."""
        if self._rewritten is None:
            return refusal
        if self._rewritten.denial is not None:
            return self._rewritten.refusal()
        name = self._names[-1]
        return refusal if name == self.request.filename else tell_rewritten(refusal, name)

    def _next_other(self, refusal: RefusedError, other_names: OtherNames) -> RefusedError | None:
        names, name = self.generation.names, self._names[-1]
        if self._others is None:
            self._refusal = refusal  # of the name as sent; what became of the others is nobody's business
            self.holds_for_all = False
            peer = self.incoming.peer[0]
            places = partial(places_of, self.generation, self.incoming, self.request)
            self._others = other_names.of(names, name, peer, places) if names.may_mean_more(name) else _NOTHING
        for path, way in self._others:
            self.way = way
            if self._decide((path,)) is None:
                return None
        if names.is_optional(name):
            return OptionalMissingError(self._refusal.code, self._refusal.text, why=self._refusal.why)
        return self._refusal

    def _decide_about(self, name: str) -> RefusedError | None:
        try:
            paths = self.generation.names.spelled.spellings_of(name)
        except RefusedError as refusal:
            return refusal.with_traceback(None)
        return self._decide(paths)

    def _decide(self, paths: tuple[bytes, ...]) -> RefusedError | None:
        """Ask the rules about a name; None: they allow it."""
        policy = self.generation.policy
        try:
            if policy.rules is not None:
                paths = plain_paths(paths)
            self.decision = policy.decide_read(self.incoming, self.request, paths)
            if policy.rules is not None and policy.rules.limits_clients:
                charge(self.incoming, self.decision.client_limits)
        except RefusedError as refusal:
            return refusal.with_traceback(None)  # that leads here, and to what will hold it
        return None

    def depend_on_asker(self) -> None:
        """Let nobody repeat for others what is decided from now on."""
        self.holds_for_all = False
        self.decision = msgspec.structs.replace(self.decision, depends_on_asker=True)
