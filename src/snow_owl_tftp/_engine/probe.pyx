"""The engine's inline parts, callable from Python: for tests alone, and in no wheel.

What a `.pxd` holds is compiled into whoever cimports it, so this module runs the very source that the worker runs.
Nothing here is fast, and nothing here adds a rule: FlightProbe joins the state machine with packets exactly as
the worker does, but for sockets, files and queues.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from snow_owl_tftp._engine.base.accounts cimport (
    ACCOUNT_WAYS, Account, AccountTable, account_ask, account_close, account_open, account_prove, account_rejoin,
    accounts_free, accounts_init)
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.index cimport (
    Index, hash_bytes, index_add, index_find, index_free, index_init, index_remove)
from snow_owl_tftp._engine.base.quotas cimport ClientLimits
from snow_owl_tftp._engine.base.transfer cimport Transfer, may_follow as state_may_follow
from snow_owl_tftp._engine.memory.buckets cimport (
    BUCKET_WAYS, Bucket, BucketTable, bucket_of, buckets_free, buckets_init)
from snow_owl_tftp._engine.memory.networks cimport (
    NETWORK_SETS, NETWORK_WAYS, Network, answer_is_usual, answer_slack_ns, learn_answer, network_fill, network_find,
    network_of, network_on_doubt, network_on_evidence, network_on_forgery, trial_bits, trial_step_ns)
from snow_owl_tftp._engine.memory.remembered cimport MEMORY_SETS, MEMORY_WAYS, Remembered, memory_keep, memory_recall
from snow_owl_tftp._engine.memory.timers cimport (
    Wheel, wheel_init, wheel_next_ns, wheel_remove, wheel_take_due, wheel_update)
from snow_owl_tftp._engine.net.adaptive cimport linger_law_ns, smooth_rate
from snow_owl_tftp._engine.net.batch cimport Tuning
from snow_owl_tftp._engine.protocol.bucket cimport (
    owl_bucket_look_shared, owl_bucket_take, owl_bucket_take_shared, owl_bucket_wait_ns, owl_bucket_cost_ns)
from snow_owl_tftp._engine.protocol.exchange cimport (
    flight_init, flight_offset, flight_remember, flight_restart_clocks, flight_rto_ns, flight_wait_ns)
from snow_owl_tftp._engine.protocol.opcodes cimport OP_ACK, OP_DATA, OP_ERROR, OP_OACK
from snow_owl_tftp._engine.protocol.patience cimport Patience, patience_on_loss, patience_on_pause, patience_rto_ns
from snow_owl_tftp._engine.protocol.receiver cimport flight_dally_ns, receiver_on_data
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit, Rtt, rtt_rto_ns, rtt_sample
from snow_owl_tftp._engine.protocol.sender cimport (
    flight_is_pausing, flight_rest, flight_send_end, sender_on_ack, sender_sent)
from snow_owl_tftp._engine.protocol.seq cimport seq_ahead, seq_block, seq_index_from
from snow_owl_tftp._engine.protocol.timeouts cimport flight_on_timeout
from snow_owl_tftp._engine.protocol.window cimport (
    ACT_ACK, ACT_DELIVER, ACT_DONE, ACT_FINAL, ACT_FIRST, ACT_GIVE_UP, ACT_SEND, Flight, RECEIVER, SENDER,
    flight_check)


# --- seq -------------------------------------------------------------------------------------------------

def block_of(int64_t block_index, int rollover=0):
    """seq_block."""
    return seq_block(block_index, rollover)


def index_from(int64_t reference, uint16_t block, int rollover=0):
    """seq_index_from."""
    return seq_index_from(reference, block, rollover)


def ahead_of(int64_t expected, uint16_t block, int rollover=0):
    """seq_ahead."""
    return seq_ahead(expected, block, rollover)


# --- buckets ---------------------------------------------------------------------------------------------

cdef class BucketProbe:
    """A bucket, and one of several threads that is asked the same; the face of protocol.bucket.Bucket."""
    cdef uint64_t _alone, _shared

    def wait_ns(self, uint64_t amount, uint64_t rate, uint64_t now_ns):
        return self._same(owl_bucket_wait_ns(self._alone, owl_bucket_cost_ns(amount, rate), now_ns),
                          owl_bucket_look_shared(&self._shared, amount, rate, now_ns))

    def reserve(self, uint64_t amount, uint64_t rate, uint64_t now_ns):
        return self._same(owl_bucket_take(&self._alone, amount, rate, now_ns, False),
                          owl_bucket_take_shared(&self._shared, amount, rate, now_ns, False))

    def take_now(self, uint64_t amount, uint64_t rate, uint64_t now_ns):
        """How long to wait; 0: they were there, and were taken."""
        return self._same(owl_bucket_take(&self._alone, amount, rate, now_ns, True),
                          owl_bucket_take_shared(&self._shared, amount, rate, now_ns, True))

    cdef uint64_t _same(self, uint64_t alone, uint64_t shared) except? 7:
        if alone != shared or self._alone != self._shared:
            raise AssertionError(f"the shared bucket differs: {alone} {shared} {self._alone} {self._shared}")
        return alone

    @property
    def full_ns(self):
        return self._alone


cdef class BucketTableProbe:
    """A table of `sets` times `ways` clients, known by numbers in place of hashes."""
    cdef BucketTable _table
    cdef readonly uint64_t replaced
    ways = BUCKET_WAYS

    def __cinit__(self, uint32_t sets):
        if buckets_init(&self._table, sets) < 0:
            raise MemoryError()

    def __dealloc__(self):
        buckets_free(&self._table)

    def ask(self, uint32_t client, uint64_t rate, uint64_t now_ns):
        """Whether it may ask once more."""
        cdef Bucket *b = bucket_of(&self._table, client, now_ns, &self.replaced)
        return owl_bucket_take(&b.requests_ns, 1, rate, now_ns, True) == 0


# --- accounts --------------------------------------------------------------------------------------------

cdef Peer numbered_peer(uint32_t client):
    cdef Peer peer
    memset(&peer, 0, sizeof(peer))
    peer.address.family = 2                      # AF_INET
    memcpy(peer.address.raw + 4, &client, 4)
    return peer


cdef class AccountTableProbe:
    """A table of `sets` times `ways` clients, whose addresses are numbers."""
    cdef AccountTable _table
    ways = ACCOUNT_WAYS

    def __cinit__(self, uint32_t sets):
        if accounts_init(&self._table, sets, 7) < 0:
            raise MemoryError()

    def __dealloc__(self):
        accounts_free(&self._table)

    def ask(self, uint32_t client, uint32_t rule, uint64_t requests_per_s, uint32_t transfers, uint64_t now_ns):
        cdef Peer peer = numbered_peer(client)
        cdef ClientLimits limits = ClientLimits(requests_per_s, 0, transfers, rule)
        return account_ask(&self._table, &peer, &limits, now_ns)

    def open(self, uint32_t client, uint32_t rule, uint32_t transfers, uint64_t now_ns):
        """What is answered, and a number for it; -1: it was not opened."""
        cdef Peer peer = numbered_peer(client)
        cdef ClientLimits limits = ClientLimits(0, 0, transfers, rule)
        cdef Account *account
        cdef int answer = account_open(&self._table, &peer, &limits, now_ns, &account)
        return answer, -1 if account == NULL else account - self._table.entries

    def prove(self, uint32_t account):
        return account_prove(&self._table, &self._table.entries[account])

    def rejoin(self, uint32_t client, uint32_t rule, uint32_t transfers, uint64_t now_ns):
        """Whether there was a place, and the number of its account."""
        cdef Peer peer = numbered_peer(client)
        cdef ClientLimits limits = ClientLimits(0, 0, transfers, rule)
        cdef Account *account = NULL
        cdef bint has_place = account_rejoin(&self._table, &peer, &limits, now_ns, &account)
        return has_place, -1 if account == NULL else account - self._table.entries

    def close(self, uint32_t account):
        account_close(&self._table, &self._table.entries[account])

    @property
    def held(self):
        return self._table.held

    @property
    def replaced(self):
        return self._table.replaced

    @property
    def missed(self):
        return self._table.missed


# --- rtt -------------------------------------------------------------------------------------------------

cdef Retransmit retransmit_of(policy):
    return Retransmit(policy.initial_ns, policy.floor_ns, policy.ceiling_ns, policy.give_up_ns,
                      policy.half_open_give_up_ns, policy.half_open_datagrams, policy.min_retries)


cdef Patience patience_of(known):
    """protocol.patience.Patience, or None."""
    if known is None:
        return Patience(0, 0, 0, 0, 0, 0)
    return Patience(known.pause_ns, known.srtt_ns, known.rttvar_ns, known.burst_blocks, known.silence, known.loses)


cdef class RttProbe:
    """Rtt and Patience under a RetransmitPolicy."""
    cdef Rtt _rtt
    cdef Patience _patience
    cdef Retransmit _policy

    def __init__(self, policy):
        self._policy = retransmit_of(policy)

    def sample(self, uint64_t rtt_ns):
        rtt_sample(&self._rtt, &self._policy, rtt_ns)

    def on_loss(self):
        patience_on_loss(&self._patience, &self._policy)

    def on_pause(self, uint64_t late_ns):
        patience_on_pause(&self._patience, &self._policy, late_ns)

    def waits_ns(self, uint32_t retries):
        """patience_rto_ns."""
        return patience_rto_ns(&self._patience, &self._rtt, &self._policy, retries)

    @property
    def srtt_ns(self):
        return self._rtt.srtt_ns

    @property
    def rttvar_ns(self):
        return self._rtt.rttvar_ns

    @property
    def rto_ns(self):
        return rtt_rto_ns(&self._rtt, &self._policy)


# --- linger ----------------------------------------------------------------------------------------------

def linger_law(uint64_t live, double rate_per_ns, *, bint recvmmsg=True, uint32_t max_batch=64, uint32_t linger_us=0,
               bint adaptive=False, uint32_t adaptive_threshold=5):
    """linger_law_ns: (mode, linger_ns)."""
    cdef Tuning tuning = Tuning(recvmmsg, True, True, True, max_batch, linger_us, adaptive, adaptive_threshold, False)
    cdef uint8_t mode = 255
    cdef uint64_t ns = linger_law_ns(&tuning, live, rate_per_ns, &mode)
    return mode, ns


def smoothed(double rate_per_ns, uint64_t datagrams, uint64_t elapsed_ns):
    """smooth_rate."""
    return smooth_rate(rate_per_ns, datagrams, elapsed_ns)


# --- index -----------------------------------------------------------------------------------------------

def keyed_hash(bytes data, uint64_t secret):
    """hash_bytes."""
    return hash_bytes(<const uint8_t *><const char *>data, len(data), secret)


cdef class IndexProbe:
    """An Index of `size` cells at first (a power of two)."""
    cdef Index _index

    def __init__(self, uint32_t size=2):
        if index_init(&self._index, size) < 0:
            raise MemoryError()

    def __dealloc__(self):
        index_free(&self._index)

    def add(self, uint32_t hash, uint32_t value):
        if index_add(&self._index, hash, value) < 0:
            raise MemoryError()

    def remove(self, uint32_t hash, uint32_t value):
        index_remove(&self._index, hash, value)

    def find(self, uint32_t hash):
        """Every value under `hash`, in the order in which the engine meets them."""
        cdef uint32_t at = hash
        cdef int64_t value
        cdef list values = []
        while True:
            value = index_find(&self._index, hash, &at)
            if value < 0:
                return values
            values.append(value)

    @property
    def used(self):
        return self._index.used

    @property
    def size(self):
        return self._index.mask + 1


# --- timers ----------------------------------------------------------------------------------------------

cdef class WheelProbe:
    """A Wheel with `count` transfers that have nothing but a deadline."""
    cdef Wheel *_wheel
    cdef Transfer *_transfers
    cdef readonly uint32_t count

    def __cinit__(self, uint32_t count, uint64_t now_ns):
        self._wheel = <Wheel *>calloc(1, sizeof(Wheel))
        self._transfers = <Transfer *>calloc(count, sizeof(Transfer))
        if self._wheel == NULL or self._transfers == NULL:
            raise MemoryError()
        self.count = count
        wheel_init(self._wheel, now_ns)

    def __dealloc__(self):
        free(self._wheel)
        free(self._transfers)

    cdef Transfer *_at(self, uint32_t number) except NULL:
        if number >= self.count:
            raise IndexError(number)
        return &self._transfers[number]

    def set(self, uint32_t number, uint64_t deadline_ns):
        """What the worker does after every change of a deadline."""
        cdef Transfer *t = self._at(number)
        t.flight.deadline_ns = deadline_ns
        wheel_update(self._wheel, t)

    def remove(self, uint32_t number):
        wheel_remove(self._wheel, self._at(number))

    def take_due(self, uint64_t now_ns):
        """The number of one transfer whose deadline has passed, or None."""
        cdef Transfer *t = wheel_take_due(self._wheel, now_ns)
        return None if t == NULL else t - self._transfers

    def next_ns(self):
        """When to look again; None: nothing waits."""
        cdef uint64_t due = wheel_next_ns(self._wheel)
        return None if due == <uint64_t>-1 else due

    @property
    def waiting(self):
        return self._wheel.count


# --- window ----------------------------------------------------------------------------------------------

cdef class FlightProbe:
    """A Flight with packets in and out, and the face of protocol.transfer's Sender and Receiver.

    Args:
        role: 0 SENDER, 1 RECEIVER.
        terms: protocol.transfer.Terms.
        source: what a sender sends.
        opening: as for protocol.transfer.Receiver; a sender opens when there is a first packet.
    """
    cdef Flight _flight
    cdef Retransmit _policy
    cdef readonly bytes source
    cdef readonly object terms
    cdef readonly bytearray delivered
    cdef readonly object outcome
    cdef readonly bint done, received, dallies
    cdef bint _timer, _opening

    def __init__(self, int role, terms, bytes source=b"", bint opening=True):
        self.terms = terms
        self.source = source
        self.delivered = bytearray()
        self._policy = retransmit_of(terms.policy)
        self._flight.role = role
        self._opening = opening if role == RECEIVER else bool(terms.first_packet)

    # --- what the peer and the clock do

    def start(self, uint64_t now_ns):
        cdef Flight *f = &self._flight
        cdef int64_t last = -1
        cdef Patience patience = patience_of(self.terms.patience)
        if f.role == SENDER:
            last = <int64_t>(len(self.source) // <Py_ssize_t>self.terms.blksize_bytes) + 1
        flight_init(f, &self._policy, &patience, f.role, self.terms.blksize_bytes, self.terms.windowsize_blocks, last,
                    self._opening, self.terms.proven, self.terms.timeout_ns, now_ns)
        f.rollover = self.terms.rollover
        self._timer = True
        if f.opening:
            return [self._first()]
        if f.role == RECEIVER:
            f.deadline_ns = now_ns + flight_wait_ns(f, &self._policy)     # on_resume
            return [self._ack(0)]
        return self._pump(now_ns)

    def receive(self, bytes datagram, uint64_t now_ns):
        cdef uint16_t block
        if self.done or len(datagram) < 4 or datagram[0] != 0:
            return []
        block = <uint16_t>(datagram[2] << 8 | datagram[3])
        if datagram[1] == OP_ACK:
            return self._on_ack(block, now_ns)
        if datagram[1] == OP_DATA:
            return self._on_data(block, datagram[4:], now_ns)
        if datagram[1] == OP_ERROR:
            return self._end("PEER_ERROR")
        if (datagram[1] == OP_OACK and self._flight.role == RECEIVER and not self._flight.opening
                and self._flight.next == 1):
            return [self._ack(0)]
        return []

    def tick(self, uint64_t now_ns):
        cdef int act
        if self.done or not self._timer or now_ns < self._flight.deadline_ns:
            return []
        if self.dallies:
            return self._end("OK")
        act = flight_on_timeout(&self._flight, &self._policy, now_ns)
        self._check()
        if act & ACT_GIVE_UP:
            self._end("TIMED_OUT")
            return [b"\0\5\0\0timed out: no answer\0"]
        if act & ACT_FIRST:
            return [self._first()]
        if act & ACT_ACK:
            return [self._ack(self._flight.next - 1)]
        return self._pump(now_ns) if act & ACT_SEND else []

    def restart_clocks(self, uint64_t now_ns):
        if not self.done and not self._flight.opening:
            flight_restart_clocks(&self._flight, &self._policy, now_ns)
        return []

    def commit(self, uint64_t now_ns):
        self.outcome = "OK"
        self.dallies = True
        self._timer = True
        self._flight.deadline_ns = now_ns + flight_dally_ns(&self._flight)     # on_commit
        return [self._ack(self._flight.last)]

    # --- as worker/packets.pxd and receiving.pxd join them

    cdef list _on_ack(self, uint16_t block, uint64_t now_ns):
        cdef int act
        if self._flight.role != SENDER:
            return []
        act = sender_on_ack(&self._flight, &self._policy, block, now_ns)
        self._check()
        if act & ACT_DONE:
            return self._end("OK")
        return self._pump(now_ns) if act & ACT_SEND else []

    cdef list _on_data(self, uint16_t block, bytes payload, uint64_t now_ns):
        cdef Flight *f = &self._flight
        cdef int act
        if f.role != RECEIVER:
            return []
        if self.received:
            return [self._ack(f.last)] if self.dallies and block == seq_block(f.last, f.rollover) else []
        if len(payload) > <Py_ssize_t>f.blksize_bytes:
            self._end("ABORTED")
            return [b"\0\5\0\4DATA longer than the block size\0"]
        act = receiver_on_data(f, &self._policy, block, <uint32_t>len(payload), now_ns)
        self._check()
        if act & ACT_DELIVER:
            self.delivered += payload
        if act & ACT_FINAL:
            self.received = True
            self._timer = False
            return []
        return [self._ack(f.next - 1)] if act & ACT_ACK else []

    cdef list _pump(self, uint64_t now_ns):
        cdef Flight *f = &self._flight
        cdef int64_t end = flight_send_end(f), index
        cdef Py_ssize_t size = f.blksize_bytes
        cdef list sent = []
        cdef uint16_t block
        for index in range(f.next, end + 1):
            block = seq_block(index, f.rollover)
            sent.append(bytes((0, 3, block >> 8, block & 0xff)) + self.source[(index - 1) * size:index * size])
        if sent and end == f.last and len(sent) > 1:
            sender_sent(f, &self._policy, end - f.next, now_ns)               # the final block goes apart
        if sent:
            sender_sent(f, &self._policy, end - f.next + 1, now_ns)
        flight_rest(f, &self._policy, now_ns)                                 # rest of worker/send.pxd
        self._check()
        return sent

    cdef bytes _ack(self, int64_t block_index):
        cdef uint16_t block = seq_block(block_index, self._flight.rollover)
        return bytes((0, 4, block >> 8, block & 0xff))

    cdef bytes _first(self):
        return self.terms.first_packet or self._ack(0)

    cdef list _end(self, outcome):
        if self.outcome is None:
            self.outcome = outcome
        self.done = True
        self._timer = False
        return []

    cdef _check(self):
        if not flight_check(&self._flight):
            raise AssertionError(f"invariant broken: {self.flight()}")

    # --- what a test looks at

    def offset(self, int64_t block_index):
        """flight_offset."""
        return flight_offset(&self._flight, block_index)

    @property
    def deadline_ns(self):
        return self._flight.deadline_ns if self._timer else None

    @property
    def rto_ns(self):
        return flight_rto_ns(&self._flight, &self._policy)

    @property
    def pausing(self):
        return self._flight.role == SENDER and bool(flight_is_pausing(&self._flight))

    def flight(self):
        """The whole struct, and those within it, as dicts: no field can be left out."""
        return self._flight

    def policy(self):
        """The whole Retransmit."""
        return self._policy

    def learned(self):
        """What the client's next transfer is to know, by the names of protocol.patience."""
        cdef Patience p
        flight_remember(&self._flight, &p)
        return {"loses": bool(p.loses), "pause_ns": p.pause_ns, "srtt_ns": p.srtt_ns, "rttvar_ns": p.rttvar_ns,
                "burst_blocks": p.burst_blocks, "silence": p.silence}

    @property
    def retransmits(self):
        return self._flight.retransmits


# --- states ----------------------------------------------------------------------------------------------

def may_follow(int before, int after):
    """may_follow: whether a transfer goes from one T_ state to another."""
    return bool(state_may_follow(before, after))


# --- memory and networks ---------------------------------------------------------------------------------

cdef class MemoryProbe:
    """What a worker remembers of clients, by the hash of their address."""
    cdef Remembered *_memory

    def __cinit__(self):
        self._memory = <Remembered *>calloc(MEMORY_SETS * MEMORY_WAYS, sizeof(Remembered))
        if self._memory == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._memory)

    def keep(self, uint32_t hash, uint64_t now_ns, bint loses=True):
        """memory_keep, by name."""
        cdef Patience patience = Patience(0, 0, 0, 0, 0, loses)
        return ("same", "learned", "replaced")[memory_keep(self._memory, hash, now_ns, &patience)]

    def recall(self, uint32_t hash, uint64_t now_ns):
        """memory_recall."""
        cdef Patience patience
        return memory_recall(self._memory, hash, now_ns, &patience)


cdef class NetworksProbe:
    """What a worker knows of networks, by the hash of each."""
    cdef Network *_networks
    cdef readonly uint64_t replaced
    cdef readonly int64_t share_bytes

    def __cinit__(self, int64_t share_bytes):
        self._networks = <Network *>calloc(NETWORK_SETS * NETWORK_WAYS, sizeof(Network))
        self.share_bytes = share_bytes
        if self._networks == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._networks)

    cdef Network *_entry(self, uint32_t hash, uint64_t now_ns) noexcept:
        cdef Network *n = network_of(self._networks, hash, now_ns, self.share_bytes, &self.replaced)
        network_fill(n, self.share_bytes, now_ns)
        return n

    def spend(self, uint32_t hash, uint64_t now_ns, int64_t size_bytes):
        """Returns what is left of the share."""
        cdef Network *n = self._entry(hash, now_ns)
        n.left_bytes -= size_bytes
        return n.left_bytes

    def evidence(self, uint32_t hash, uint64_t now_ns, uint32_t bits):
        """network_on_evidence."""
        return network_on_evidence(self._entry(hash, now_ns), bits, now_ns)

    def doubt(self, uint32_t hash, uint64_t now_ns, uint32_t bits):
        """network_on_doubt."""
        network_on_doubt(self._entry(hash, now_ns), bits, self.share_bytes)

    def forgery(self, uint32_t hash, uint64_t now_ns):
        """network_on_forgery."""
        network_on_forgery(self._entry(hash, now_ns))

    def is_proven(self, uint32_t hash, uint64_t now_ns):
        cdef Network *n = network_find(self._networks, hash, now_ns)
        return n != NULL and bool(n.is_proven)

    def is_known(self, uint32_t hash, uint64_t now_ns):
        return network_find(self._networks, hash, now_ns) != NULL


def trial_of(uint64_t spread_ns):
    """How far from usual an answer may be, the step of the whiles, and what it is worth, by how answers differ."""
    cdef uint64_t slack_ns = answer_slack_ns(spread_ns)
    return slack_ns, trial_step_ns(slack_ns), trial_bits(slack_ns)


def is_usual(uint64_t answer_ns, uint64_t usual_ns, uint64_t slack_ns):
    """answer_is_usual."""
    return answer_is_usual(answer_ns, usual_ns, slack_ns)


def learn(uint64_t usual_ns, uint64_t spread_ns, uint64_t answer_ns):
    """learn_answer: what is usual, and the spread, after one more answer."""
    learn_answer(&usual_ns, &spread_ns, answer_ns)
    return usual_ns, spread_ns
