"""Requests that wait until they are decided: whose turn is next, and who has waited too long.

May know: a request's host, the time it came, and its id. Must not decide, answer or tell anything.

Where decisions keep up nothing waits, and the order hardly matters. Where they do not, it matters whom
the delay hits: clients ask again after a second and give up after a few, so what is answered late is
answered in vain, and the next one is late too. Therefore

- an address that has not had a turn comes before one that has, and those take turns: who sends
  thousands of requests waits for them, not the others;
- of what is late the newest comes first, since its client is still there;
- what is older than any client's patience is dropped, and so is what is late while very many wait.

Invariants: every request that was added is taken or dropped once. Each call costs the same however
many wait. How many can wait is bounded by whoever adds them (`max_pending_requests`).
"""

from collections import OrderedDict, deque
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["Waiting"]

PATIENCE_NS: Final = 3_000_000_000
"""Clients ask again after one to three seconds, and a copy of a request that waits would not be a new one."""
LATE_NS: Final = 250_000_000
"""The loop is overloaded: a client that asks again after a second still has its answer before."""


class Waits(Protocol):
    """A request; the engine's has this shape."""

    @property
    def transfer_id(self) -> int:
        """Unique among those that wait."""

    @property
    def received_ns(self) -> int:
        """When it came, CLOCK_MONOTONIC."""

    @property
    def host(self) -> bytes:
        """The client's address, as the kernel has it: nobody reads it, so no text is made of it."""


_R = TypeVar("_R", bound=Waits)


class Waiting(Generic[_R]):
    """Requests by address, in the order of their turns."""

    def __init__(self, crowd: int) -> None:
        """Begin with none.

        Args:
            crowd: Where more than so many wait those that are late are dropped, the oldest first.
        """
        self._crowd = crowd
        self._hosts: OrderedDict[bytes, deque[_R]] = OrderedDict()
        """Whose turn is next stands last; of each host the oldest request stands first."""
        self._by_age: OrderedDict[int, bytes] = OrderedDict()
        """The host of each, the oldest first."""

    def __len__(self) -> int:
        return len(self._by_age)

    def add(self, request: _R) -> None:
        """Let a request wait; an address that has nothing waiting is next."""
        host = request.host
        queue = self._hosts.get(host)
        if queue is None:
            queue = self._hosts[host] = deque()
        queue.append(request)
        self._by_age[request.transfer_id] = host

    def take(self, now_ns: int) -> _R | None:
        """Return the request whose turn it is, which waits no longer; None: nothing waits."""
        if not self._hosts:
            return None
        host, queue = self._hosts.popitem()
        request = queue.pop() if now_ns - queue[0].received_ns > LATE_NS else queue.popleft()
        if queue:
            self._hosts[host] = queue
            self._hosts.move_to_end(host, last=False)
        del self._by_age[request.transfer_id]
        return request

    def drop(self, now_ns: int) -> _R | None:
        """Return the oldest, which waits no longer, if it waits in vain; else None."""
        if not self._by_age:
            return None
        transfer_id = next(iter(self._by_age))
        host = self._by_age[transfer_id]
        queue = self._hosts[host]
        if now_ns - queue[0].received_ns <= (LATE_NS if len(self._by_age) > self._crowd else PATIENCE_NS):
            return None
        del self._by_age[transfer_id]
        request = queue.popleft()
        if not queue:
            del self._hosts[host]
        return request
