"""Names rewritten before the rules see them, and the first of several that can be opened.

    Request ─Rewrites─► names ─policy─► decisions ─Candidates─► the first that opens, or why none does

May know: policy and how content answers. Must not know how anything is opened, nor what a rewrite is made of.

Invariants:
- A candidate that the rules refuse is as one that cannot be opened; only the last one's refusal is an answer.
- Threads: a candidate is waited for in a thread of its own device (see `slow_opens`), whichever came before it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.names import normalise_name, spellings_of
from snow_owl_tftp.content.source import LATER, ContentSource, Later, Named, NotHere
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import ReadDecision, WriteDecision
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.slow_opens import Elsewhere

if TYPE_CHECKING:
    from snow_owl_tftp.policy.rewrite.rewrites import Rewritten

__all__ = ["Candidates", "decide_rewritten_write"]


class Candidates:
    """What one RRQ may mean, as a source of content: see ContentSource. It serves one request, one thread at a time.

    Attributes:
        decision: Of the candidate that is looked for, or that was found.
    """

    def __init__(
        self, source: ContentSource[OpenFile], decisions: Sequence[ReadDecision], otherwise: "Rewritten"
    ) -> None:
        """Take one decision at least.

        Args:
            source: Opens them.
            decisions: In their order.
            otherwise: Whose denial is the answer where none can be opened; without one the last says why.
        """
        self._source = source
        self._decisions = decisions
        self._otherwise = otherwise
        self._at = 0
        self._may_wait_on: int | None = None

    @classmethod
    def of(
        cls, rewritten: "Rewritten", policy: Policy, source: ContentSource[OpenFile], asker: Asker, request: Request
    ) -> "Candidates":
        """Ask the rules about every name.

        Raises:
            RefusedError: No name is left to look for.
        """
        decisions = []
        refusal = None
        for name in rewritten.names:
            try:
                decision = policy.decide_read(asker, request, spellings_of(name))
            except RefusedError as error:
                refusal = _told(error, name)
                continue
            decisions.append(decision if rewritten.holds_for_all else _for_this_asker(decision))
        if not decisions:
            raise rewritten.refusal() if rewritten.denial is not None or refusal is None else refusal
        return cls(source, decisions, rewritten)

    @property
    def decision(self) -> ReadDecision:
        """See the class."""
        return self._decisions[self._at]

    def open_now(self, named: Named) -> OpenFile | NotHere | Later:
        """See ContentSource.open_now."""
        while True:
            found = self._source.open_now(self.decision)
            if found is LATER:
                return LATER
            judged = self._judged(found)
            if judged is not None:
                return judged

    def open(self, named: Named) -> OpenFile | NotHere:
        """See ContentSource.open.

        Raises:
            Elsewhere: Another device has to be asked about the next candidate.
        """
        while True:
            found = self._judged(self._source.open(self.decision))
            if found is not None:
                return found
            device = self._source.device_of(self.decision, self._may_wait_on)
            if self._may_wait_on not in (None, device):
                raise Elsewhere(device)

    def device_of(self, named: Named, may_wait_on: int | None = None) -> int:
        """See ContentSource.device_of."""
        self._may_wait_on = may_wait_on
        return self._source.device_of(self.decision, may_wait_on)

    def _judged(self, found: OpenFile | NotHere) -> OpenFile | NotHere | None:
        """None: it is the next one's turn."""
        if isinstance(found, OpenFile):
            # Of those before it any may appear: nobody may repeat this without looking for them.
            found.is_as_sent = found.is_as_sent and self._at == 0
            return found
        if self._at + 1 < len(self._decisions):
            self._at += 1
            return None
        if self._otherwise.denial is not None:
            return NotHere(self._otherwise.refusal())
        return NotHere(_told(found.refusal, self._otherwise.names[-1]))


def decide_rewritten_write(
    rewritten: "Rewritten", policy: Policy, asker: Asker, request: Request
) -> tuple[str, WriteDecision]:
    """Decide about a WRQ: of several names the first counts that may be written.

    Returns:
        The name, and what the rules say about it.

    Raises:
        RefusedError: None of them may be, or the request is denied.
    """
    refusal = None
    for name in rewritten.names:
        try:
            return name, policy.decide_write(asker, request, normalise_name(name))
        except RefusedError as error:
            refusal = _told(error, name)
    raise rewritten.refusal() if rewritten.denial is not None or refusal is None else refusal


def _for_this_asker(decision: ReadDecision) -> ReadDecision:
    return msgspec.structs.replace(decision, depends_on_asker=True)


def _told(refusal: RefusedError, name: str) -> RefusedError:
    """Tell the operator which name was looked for: a log line has the one that was asked for."""
    refusal.why = "; ".join(filter(None, (f'rewritten to "{name}"', refusal.why)))
    return refusal
