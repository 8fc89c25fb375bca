"""Limits of the engine are divided among its workers: none lends to another, and the parts are rounded up."""

import contextlib

import pytest
from tests.support.client import Client

from snow_owl_tftp.protocol.packets import Error


def granted(address, requests, answers):
    """How many of so many requests, each of a client of its own, are not refused; and what the others are told."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(requests)]
        refusals = []
        for client in clients:
            client.request("file")
            if answers or client is clients[-1]:
                packet, _ = client.receive_packet()
                refusals += [packet.text] if isinstance(packet, Error) else []
        if not answers:
            refusals += [None for client in clients[:-1] if client.has_heard()]
    return requests - len(refusals), refusals


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("max_transfers", "server busy: too many transfers"),
        ("max_half_open", "server busy: too many unanswered requests"),
        ("max_pending_requests", "server busy: requests are queueing"),
    ],
)
@pytest.mark.parametrize(("workers", "total", "part"), [(1, 4, 4), (2, 4, 2), (2, 5, 3), (3, 4, 2)])
def test_a_limit_is_divided_among_workers(serve, tmp_path, limit, told, workers, total, part):
    (tmp_path / "file").write_bytes(bytes(2000))
    served = serve(workers=workers, own_ports=True, **{limit: total})
    is_decided = limit != "max_pending_requests"
    if not is_decided:
        served.on_request = lambda event, request: None  # Python is still thinking
    for address in served.addresses:
        # One too many: the answer to it shows that the worker has seen all before it.
        given, refusals = granted(address, part + 1, is_decided)
        assert given == part
        assert refusals[0].startswith(told)
