"""What must add up when an engine has done its work: every request came to something, and every transfer ended.

May know: docs/engine-contract.md. Must not: know an engine, or how its events were gathered.
"""

from collections.abc import Mapping
from typing import Any


def check_requests(counts: Mapping[str, Any]) -> None:
    """Holds at any quiet moment: each request was begun, asked about, refused, a copy, or dropped.

    Args:
        counts: Of an engine, summed over its workers.
    """
    told = counts["flow_hits"] + counts["flow_misses"] + counts["requests_refused_busy"]
    silent = counts["requests_repeated"] + counts["requests_dropped"]
    assert counts["requests"] + counts["requests_revived"] == told + silent, counts
    assert counts["requests_refused_busy"] == sum(counts[name] for name in counts if name.startswith("refused_")), (
        counts
    )


def check_ended(counts: Mapping[str, Any], *, requests: int, begun: int, flow_hits: int) -> None:
    """Holds when everything has ended and was polled.

    Args:
        counts: As above.
        requests: Request events.
        begun: Completions but for those of plans that came too late, which have no peer.
        flow_hits: Completions that say so of themselves.
    """
    check_requests(counts)
    assert counts["flow_misses"] == requests, counts
    assert counts["flow_hits"] == flow_hits, counts
    assert counts["transfers_started"] == counts["transfers_ended"] == begun, (begun, counts)
    levels = [counts["live_transfers"], counts["half_open_transfers"], counts["dallying_transfers"]]
    assert levels == [0, 0, 0], counts
