"""Whether a client may have what a rule allows it: asked once the rule is known, before anything is opened.

    decision ─► the engine's account of the client ─► it may, or BeyondLimitError

Clients of a class that one rule decides about are counted by the engine before anybody is asked; it knows, and counts
none of their requests twice.

May know: limits of clients. Must not count: workers repeat decisions by themselves, so the engine does.
"""

from snow_owl_tftp.policy.client_limits import ClientLimits
from snow_owl_tftp.policy.decision import BeyondLimitError
from snow_owl_tftp.server.verdict import IncomingRequest

__all__ = ["charge"]


def charge(incoming: IncomingRequest, limits: ClientLimits | None) -> None:
    """Charge a client for a request, and have its transfer counted by these limits; None: by none.

    Raises:
        BeyondLimitError: It has all that it may have.
    """
    beyond = incoming.charge(limits)
    if beyond is not None and limits is not None:
        raise BeyondLimitError(limits, beyond, len(incoming.datagram))
