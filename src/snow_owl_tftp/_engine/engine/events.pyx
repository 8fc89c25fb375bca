"""Events: what Engine.poll() returns, made of the messages that come up.

An event is a copy: the message may be freed, and its recipe let go, once it is made.  Peers become text when asked for.
"""

import socket as _socket

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from snow_owl_tftp._engine.base.accounts cimport (
    ACCOUNT_GRANTS, ACCOUNT_SETS, account_ask, accounts_free, accounts_init)
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.messages cimport (
    Completed, M_ANSWER, M_COMPLETION, M_FIRST_DATA, M_MODE, M_PROGRESS, M_RECEIVED, M_REFUSED, M_RELEASED, M_REQUEST,
    M_RETIRED, Message)
from snow_owl_tftp._engine.base.quotas cimport ClientLimits
from snow_owl_tftp._engine.includes.net cimport AF_INET, AF_INET6, ntohs, sockaddr_in6

from snow_owl_tftp._engine.worker.rates cimport reason_by_rule

from snow_owl_tftp._engine.engine.names import LIMITS


MAX_RATE = 10_000_000_000                         # tokens a second: what one costs is more than a tenth of a ns


cdef int client_limits(limits, ClientLimits *made) except -1:
    """Of Python's (rule, requests_per_s, bytes_per_s, transfers)."""
    rule, requests_per_s, bytes_per_s, transfers = limits
    if not (0 <= rule < 0xFFFFFFFF and 0 <= transfers <= 0xFFFFFFFF and 0 <= requests_per_s <= MAX_RATE
            and 0 <= bytes_per_s <= MAX_RATE):
        raise ValueError("a rule has 32 bits, transfers too, and a rate is 0..10,000,000,000 a second")
    made.rule = rule
    made.requests_per_s = requests_per_s
    made.bytes_per_s = bytes_per_s
    made.transfers = transfers
    return 0


cdef tuple peer_tuple(const Peer *peer):
    """(host, port) as the socket module writes them; v4 in a v6 socket stays ::ffff:…"""
    cdef const sockaddr_in6 *six = <const sockaddr_in6 *>peer.address.raw
    if peer.address.family == AF_INET:
        host = _socket.inet_ntop(_socket.AF_INET, (<const char *>peer.address.raw)[4:8])
    elif peer.address.family == AF_INET6:
        host = _socket.inet_ntop(_socket.AF_INET6, (<const char *>peer.address.raw)[8:24])
        if six.sin6_scope_id:
            host = f"{host}%{six.sin6_scope_id}"
    else:
        return ("", 0)
    return (host, ntohs(six.sin6_port))


cdef object local_host(const Local *local):
    if local.family == 0:
        return None
    if local.family == <uint32_t>AF_INET:
        return _socket.inet_ntop(_socket.AF_INET, (<const char *>local.address)[:4])
    return _socket.inet_ntop(_socket.AF_INET6, (<const char *>local.address)[:16])


cdef class Accounts:
    """What clients have of what rules let them have: an engine's, and of the requests that it has told of."""

    def __cinit__(self, uint64_t secret):
        if accounts_init(&self.table, ACCOUNT_SETS, secret) < 0:
            raise MemoryError()

    def __dealloc__(self):
        accounts_free(&self.table)


# Or the collector would look at each of a flood: what it refers to, accounts and numbers, never refers to it.
@cython.no_gc
cdef class Request:
    """A datagram on a listener that may be an RRQ or WRQ.  Answer with start() or refuse(), once."""

    @property
    def peer(self):
        """(host, TID) of the client."""
        return peer_tuple(&self._peer)

    @property
    def host(self):
        """The client's address, of v6 with its scope, as the kernel has it: tells one client from another."""
        if self._peer.address.family == AF_INET:
            return PyBytes_FromStringAndSize(<const char *>self._peer.address.raw + 4, 4)
        return PyBytes_FromStringAndSize(<const char *>self._peer.address.raw + 8, 20)

    @property
    def local_address(self):
        """The address that was asked, or None when the listener is bound to that one address."""
        return local_host(&self._local)

    def charge(self, limits):
        """Charges the client for this request by the rule that decides about it; start() goes by the last one.

        Args:
            limits: (rule, requests_per_s, bytes_per_s, transfers), of which 0 limits nothing; None: no rule limits it.

        Returns:
            None: it may; else the limit that it is beyond, of LIMITS.
        """
        cdef ClientLimits by
        cdef int answer
        self.limits = limits
        if limits is None or self._is_counted or self._accounts is None:
            return None
        client_limits(limits, &by)
        if by.requests_per_s == 0 and by.transfers == 0:
            return None                          # bytes are paced, which needs no account
        if self._charged == by.rule + 1:         # for another name that it may mean
            return self._refusal
        answer = account_ask(&self._accounts.table, &self._peer, &by, clock_ns())
        self._charged = by.rule + 1
        self._refusal = None if answer == ACCOUNT_GRANTS else LIMITS[reason_by_rule(&by, answer)]
        return self._refusal


cdef class Completion:
    """How a started transfer ended.  Times in nanoseconds of the monotonic clock, sizes in bytes."""

    @property
    def peer(self):
        """(host, TID) of the peer."""
        return peer_tuple(&self._peer)

    @property
    def local_address(self):
        """The address that was asked, or None when the socket is bound to one."""
        return local_host(&self._local)


cdef class Answer:
    """An OACK for a transfer that we asked for.  Answer with resume() or abort(), once."""

    @property
    def peer(self):
        """(host, TID) of the server."""
        return peer_tuple(&self._peer)


cdef class Progress:
    """How far a transfer of our own asking is: payload received or acknowledged, datagrams of the server and to it."""


cdef class FirstData:
    """An upload whose plan had no descriptor begins to arrive.  Answer once: supply(), or commit() with an ERROR."""


cdef class Released:
    """Nothing is written any more to the descriptor of an upload whose Completion said is_stuck."""


cdef class Retired:
    """A flow was dropped behind the last Completion of its plan: nothing refers to that plan's context any more."""


cdef class Received:
    """Every byte of an upload is written.  Answer with commit(), once."""


cdef class Refusals:
    """Requests that a worker refused by itself since it last said so, all for one reason."""

    @property
    def peer(self):
        """(host, TID) of the client that was refused last."""
        return peer_tuple(&self._peer)


cdef class ModeChange:
    """A worker began to answer at once (0), to batch (1) or to linger (2), and why."""


cdef Completion completion_event(const Message *m):
    cdef Completion c = Completion.__new__(Completion)
    cdef const Completed *told = &m.body.completion
    c.transfer_id = m.id
    c.worker = m.worker
    c.outcome = told.outcome
    c.error = told.error
    c.text = PyBytes_FromStringAndSize(<char *>m.bytes, m.bytes_used)
    c.role = m.recipe.role
    c.context = <object>m.recipe.context
    c.blksize_bytes = told.figures.blksize_bytes
    c.windowsize_blocks = told.figures.windowsize
    c.payload_bytes = told.payload_bytes
    c.started_ns = told.started_ns
    c.duration_ns = told.ended_ns - told.started_ns
    c.srtt_ns = told.figures.srtt_ns
    c.blocks = told.figures.blocks
    c.datagrams_in = told.datagrams_in
    c.datagrams_out = told.datagrams_out
    c.retransmits = told.figures.retransmits
    c.duplicate_acks = told.duplicate_acks
    c.peak_window_blocks = told.peak_window
    c.flow_hit = told.flow_hit
    c.is_stuck = told.is_stuck
    c._peer = told.peer
    c._local = told.local
    return c


cdef Released released_event(const Message *m):
    cdef Released r = Released.__new__(Released)
    r.transfer_id = m.id
    r.context = <object>m.recipe.context
    return r


cdef Retired retired_event(const Message *m):
    cdef Retired r = Retired.__new__(Retired)
    r.context = <object>m.recipe.context
    return r


cdef Answer answer_event(const Message *m):
    cdef Answer a = Answer.__new__(Answer)
    a.transfer_id = m.id
    a.datagram = PyBytes_FromStringAndSize(<char *>m.bytes, m.bytes_used)
    a.context = <object>m.recipe.context if m.recipe != NULL else None
    a._peer = m.body.answer.peer
    return a


cdef Request request_event(const Message *m):
    cdef Request r = Request.__new__(Request)
    r.transfer_id = m.id
    r.endpoint = m.body.request.endpoint
    r.datagram = PyBytes_FromStringAndSize(<char *>m.bytes, m.bytes_used)
    r.received_ns = m.body.request.received_ns
    r._is_counted = m.body.request.is_counted
    r._peer = m.body.request.peer
    r._local = m.body.request.local
    return r


cdef FirstData first_data_event(const Message *m):
    cdef FirstData f = FirstData.__new__(FirstData)
    f.transfer_id = m.id
    f.context = <object>m.recipe.context
    return f


cdef Received received_event(const Message *m):
    cdef Received r = Received.__new__(Received)
    r.transfer_id = m.id
    r.payload_bytes = m.body.received.payload_bytes
    r.context = <object>m.recipe.context
    return r


cdef Progress progress_event(const Message *m):
    cdef Progress p = Progress.__new__(Progress)
    p.transfer_id = m.id
    p.payload_bytes = m.body.progress.payload_bytes
    p.datagrams_in = m.body.progress.datagrams_in
    p.datagrams_out = m.body.progress.datagrams_out
    p.context = <object>m.recipe.context
    return p


cdef Refusals refusals_event(const Message *m):
    cdef Refusals r = Refusals.__new__(Refusals)
    r.worker = m.worker
    r.limit = LIMITS[m.body.refused.reason]
    r.count = m.body.refused.count
    r._peer = m.body.refused.last
    return r


cdef ModeChange mode_event(const Message *m):
    cdef ModeChange c = ModeChange.__new__(ModeChange)
    c.worker = m.worker
    c.mode = m.body.mode.mode
    c.live_transfers = m.body.mode.live_transfers
    c.linger_ns = m.body.mode.linger_ns
    c.datagrams_per_s = m.body.mode.datagrams_per_s
    return c


cdef object event_of(const Message *m):
    """The event that this message is, or None: one of no interest to Python."""
    if m.kind == M_COMPLETION:
        return completion_event(m)
    if m.kind == M_REQUEST:
        return request_event(m)
    if m.kind == M_ANSWER:
        return answer_event(m)
    if m.kind == M_FIRST_DATA:
        return first_data_event(m)
    if m.kind == M_RECEIVED:
        return received_event(m)
    if m.kind == M_RELEASED:
        return released_event(m)
    if m.kind == M_PROGRESS:
        return progress_event(m)
    if m.kind == M_REFUSED:
        return refusals_event(m)
    if m.kind == M_MODE:
        return mode_event(m)
    if m.kind == M_RETIRED:
        return retired_event(m)
    return None
