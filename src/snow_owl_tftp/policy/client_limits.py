"""How much each client may have, by a rule that says so, or by none.

    rules, [limits] ─limits_by_rule─► by number of a rule, 0: of none ─► decisions, and the engine's classes
                    └─let_through───► what the engine grants a client before it is known which rule decides

What a rule says of a client stands in the place of what [limits] says of each client. Where it is more, the engine lets
every client through that far, and what [limits] says is kept like a rule's, for all whom no rule gives more.

May know: settings. Must not count anything: that is the engine's affair.
"""

from collections.abc import Sequence
from typing import NamedTuple

from snow_owl_tftp.config.rules import Rule
from snow_owl_tftp.config.schema import LimitsSettings

__all__ = ["ClientLimits", "let_through", "limits_by_rule"]


class ClientLimits(NamedTuple):
    """Of each client by itself; 0: no limit. The engine takes it as it is.

    Attributes:
        rule: By which it is counted, from 1; 0: by none.
        requests_per_s: Beyond it requests are refused.
        bytes_per_s: Of DATA, its headers included; beyond it transfers are held back.
        transfers: At a time.
    """

    rule: int
    requests_per_s: int
    bytes_per_s: int
    transfers: int


def let_through(rules: Sequence[Rule], limits: LimitsSettings) -> tuple[int, int]:
    """Return how many requests a second, and transfers, a client may have by the most generous rule, or by none.

    Returns:
        The first is 0 where there is no limit.
    """
    requests = limits.max_requests_per_s_per_client
    if requests:
        requests = max([requests, *(rule.limits.requests_per_s or 0 for rule in rules)])
    return requests, max([limits.max_transfers_per_client, *(rule.limits.transfers or 0 for rule in rules)])


def limits_by_rule(rules: Sequence[Rule], limits: LimitsSettings) -> list[ClientLimits | None]:
    """Return what each client may have by each rule, behind what it may have by none; None: nothing is counted."""
    requests, transfers = let_through(rules, limits)
    usual_requests = limits.max_requests_per_s_per_client if requests > limits.max_requests_per_s_per_client else 0
    usual_transfers = limits.max_transfers_per_client if transfers > limits.max_transfers_per_client else 0
    usual = ClientLimits(0, usual_requests, 0, usual_transfers)
    found = [usual]
    for number, rule in enumerate(rules, 1):
        own = rule.limits
        if own.requests_per_s is own.bytes_per_s is own.transfers is None:
            found.append(usual)
            continue
        found.append(
            ClientLimits(
                number,
                own.requests_per_s or usual_requests,
                own.bytes_per_s or 0,
                own.transfers or usual_transfers,
            )
        )
    return [one if any(one[1:]) else None for one in found]
