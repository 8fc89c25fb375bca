"""An upload whose name is rewritten before the rules see it.

    name ─Rewrites─► names ─policy─► the first that may be written, or why none may

May know: policy. Must not know how anything is stored, nor what a rewrite is made of. Reads: `meanings`.
"""

from typing import TYPE_CHECKING

from snow_owl_tftp.content.names import Names
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import WriteDecision
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.packets import Request

if TYPE_CHECKING:
    from snow_owl_tftp.policy.rewrite.rewrites import Rewritten

__all__ = ["decide_rewritten_write", "tell_rewritten"]


def decide_rewritten_write(
    rewritten: "Rewritten", spelled: Names, policy: Policy, asker: Asker, request: Request
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
            return name, policy.decide_write(asker, request, spelled.normalise(name))
        except RefusedError as error:
            refusal = tell_rewritten(error, name)
    raise rewritten.refusal() if rewritten.denial is not None or refusal is None else refusal


def tell_rewritten(refusal: RefusedError, name: str) -> RefusedError:
    """Tell the operator which name was looked for: a log line has the one that was asked for."""
    refusal.why = "; ".join(filter(None, (f'rewritten to "{name}"', refusal.why)))
    return refusal
