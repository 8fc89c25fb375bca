"""Every test here has a network of its own, where that is allowed.

What is counted to the datagram must not hear strangers. A server goes on speaking to clients that have vanished, and
any socket of this machine that is bound to their port at 0.0.0.0 hears that, and may answer: another test's client that
is just waiting for its own server, for one.
"""

from collections.abc import Iterator

import pytest
from tests.support.namespaces import own_loopback


@pytest.fixture(autouse=True)
def home() -> Iterator[int | None]:
    """The network that the test has left: a descriptor for setns(2); None: it could not."""
    with own_loopback() as left:
        yield left
