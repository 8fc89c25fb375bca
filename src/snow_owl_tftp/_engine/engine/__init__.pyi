"""The engine's Python face, for type checkers; docs/engine-contract.md says what it all means."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypedDict

CONTRACT_VERSION: Final[int]
OUTCOMES: Final[tuple[str, ...]]
COUNTERS: Final[tuple[str, ...]]
LIMITS: Final[tuple[str, ...]]
PACED: Final[tuple[str, ...]]

ClientLimits: TypeAlias = tuple[int, int, int, int]
"""Rule, requests a second, bytes a second, transfers; 0: no limit."""

class Plan(Protocol):
    """What start, ask and resume read; `snow_owl_tftp.plan.transfer.TransferPlan` has this shape."""

    @property
    def transfer_id(self) -> int: ...
    @property
    def role(self) -> int: ...
    @property
    def fd(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def blksize_bytes(self) -> int: ...
    @property
    def windowsize_blocks(self) -> int: ...
    @property
    def timeout_ns(self) -> int: ...
    @property
    def rollover(self) -> int: ...
    @property
    def first_packet(self) -> bytes: ...
    @property
    def declared_bytes(self) -> int | None: ...
    @property
    def stream(self) -> bool: ...
    @property
    def compare(self) -> bool: ...
    @property
    def expected_oack(self) -> bytes: ...
    @property
    def context(self) -> Any: ...

class Request:
    @property
    def transfer_id(self) -> int: ...
    @property
    def endpoint(self) -> int: ...
    @property
    def datagram(self) -> bytes: ...
    @property
    def received_ns(self) -> int: ...
    @property
    def limits(self) -> ClientLimits | None: ...
    def charge(self, limits: ClientLimits | None) -> str | None: ...
    @property
    def host(self) -> bytes: ...
    @property
    def peer(self) -> tuple[str, int]: ...
    @property
    def local_address(self) -> str | None: ...

class Completion:
    @property
    def transfer_id(self) -> int: ...
    @property
    def worker(self) -> int: ...
    @property
    def outcome(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def role(self) -> int: ...
    @property
    def text(self) -> bytes: ...
    @property
    def context(self) -> Any: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def duration_ns(self) -> int: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def srtt_ns(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def datagrams_in(self) -> int: ...
    @property
    def datagrams_out(self) -> int: ...
    @property
    def retransmits(self) -> int: ...
    @property
    def duplicate_acks(self) -> int: ...
    @property
    def peak_window_blocks(self) -> int: ...
    @property
    def blksize_bytes(self) -> int: ...
    @property
    def windowsize_blocks(self) -> int: ...
    @property
    def flow_hit(self) -> bool: ...
    @property
    def is_stuck(self) -> bool: ...
    @property
    def is_last(self) -> bool: ...
    @property
    def peer(self) -> tuple[str, int]: ...
    @property
    def local_address(self) -> str | None: ...

class Answer:
    @property
    def transfer_id(self) -> int: ...
    @property
    def datagram(self) -> bytes: ...
    @property
    def context(self) -> Any: ...
    @property
    def peer(self) -> tuple[str, int]: ...

class Progress:
    @property
    def transfer_id(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def datagrams_in(self) -> int: ...
    @property
    def datagrams_out(self) -> int: ...
    @property
    def context(self) -> Any: ...

class FirstData:
    @property
    def transfer_id(self) -> int: ...
    @property
    def context(self) -> Any: ...

class Released:
    @property
    def transfer_id(self) -> int: ...
    @property
    def context(self) -> Any: ...

class Retired:
    @property
    def context(self) -> Any: ...

class Received:
    @property
    def transfer_id(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def context(self) -> Any: ...

class Refusals:
    @property
    def worker(self) -> int: ...
    @property
    def limit(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def peer(self) -> tuple[str, int]: ...

class ModeChange:
    @property
    def worker(self) -> int: ...
    @property
    def mode(self) -> int: ...
    @property
    def live_transfers(self) -> int: ...
    @property
    def linger_ns(self) -> int: ...
    @property
    def datagrams_per_s(self) -> int: ...

Event: TypeAlias = (
    Request | Completion | Answer | FirstData | Received | Released | Retired | Progress | Refusals | ModeChange
)

class Counters(TypedDict):
    epoll_wait_calls: int
    recvmmsg_calls: int
    recvmmsg_empty: int
    recvfrom_calls: int
    recvfrom_empty: int
    sendmmsg_calls: int
    sendto_calls: int
    datagrams_received: int
    datagrams_sent: int
    bytes_received: int
    bytes_sent: int
    blocks_sent: int
    blocks_received: int
    gso_trains: int
    gso_refused: int
    send_would_block: int
    send_errors: int
    requests: int
    requests_repeated: int
    requests_revived: int
    requests_dropped: int
    requests_refused_busy: int
    refused_transfers: int
    refused_half_open: int
    refused_pending: int
    refused_client_transfers: int
    refused_client_half_open: int
    refused_memory: int
    refused_guesses: int
    refused_network_transfers: int
    refused_network_half_open: int
    refused_requests: int
    refused_client_requests: int
    refused_network_requests: int
    refused_unproven: int
    refused_rule_requests: int
    refused_rule_transfers: int
    flow_hits: int
    flow_misses: int
    strays: int
    strays_answered: int
    malformed: int
    error_queue_calls: int
    errors_heard: int
    wrong_guesses: int
    acks_too_early: int
    sends_paced: int
    answers_withheld: int
    buckets_replaced: int
    sends_tried: int
    sends_capped: int
    networks_proven: int
    networks_replaced: int
    memory_learned: int
    memory_replaced: int
    memory_used: int
    retransmits: int
    duplicate_acks: int
    timeouts: int
    transfers_started: int
    transfers_ended: int
    transfers_gave_way: int
    transfers_stalled: int
    transfers_too_many: int
    lingers: int
    linger_ns: int
    file_checks: int
    page_looks: int
    chunks_lost: int
    page_waits: int
    live_transfers: int
    half_open_transfers: int
    dallying_transfers: int
    receive_histogram: list[int]
    send_histogram: list[int]
    client_prefixes: int
    accounts_replaced: int
    accounts_missed: int
    file_loads: int
    file_writes: int
    file_copies: int
    files_open: int
    files_evicted: int
    file_jobs_expired: int
    file_threads: int
    file_threads_hung: int

class ClientClasses:
    def __init__(
        self, prefixes: Iterable[tuple[bytes, int, int]], limits: Mapping[int, ClientLimits] | None = None
    ) -> None: ...
    def find(self, address: bytes) -> int: ...
    @property
    def prefix_count(self) -> int: ...

class Engine:
    def __init__(
        self,
        *,
        workers: int = 1,
        io_threads: int = 4,
        max_batch: int = 64,
        slot_bytes: int = 2048,
        linger_us: int = 0,
        adaptive: bool = False,
        adaptive_threshold: int = 5,
        recvmmsg: bool = True,
        sendmmsg: bool = True,
        gso: bool = True,
        flows: bool = True,
        max_transfers: int = 200000,
        max_transfers_per_client: int = 1000,
        max_half_open: int = 131072,
        max_half_open_per_client: int = 1000,
        max_pending_requests: int = 65536,
        max_flows: int = 4096,
        network_bytes: int = 0,
        initial_ns: int = 1000000000,
        floor_ns: int = 10000000,
        ceiling_ns: int = 3000000000,
        give_up_ns: int = 30000000000,
        half_open_give_up_ns: int = 10000000000,
        half_open_datagrams: int = 3,
        min_retries: int = 3,
        stalled_give_up_ns: int = 300000000000,
        source_linger_ns: int = 5000000000,
        sink_buffer_bytes: int = 65536,
        io_patience_ns: int = 10000000000,
        tell_modes: bool = False,
    ) -> None: ...
    def add_listener(
        self, worker: int, endpoint: int, fd: int, *, wildcard: bool = False, wants_control: bool = False
    ) -> None: ...
    def add_tid(
        self, worker: int, endpoint: int, fd: int, *, wildcard: bool = False, wants_control: bool = False
    ) -> None: ...
    def add_shared(self, worker: int, fd: int) -> None: ...
    def run(self) -> None: ...
    def set_tuning(
        self,
        *,
        recvmmsg: bool | None = None,
        sendmmsg: bool | None = None,
        gso: bool | None = None,
        flows: bool | None = None,
        max_batch: int | None = None,
        linger_us: int | None = None,
        adaptive: bool | None = None,
        adaptive_threshold: int | None = None,
        tell_modes: bool | None = None,
    ) -> None: ...
    def set_limits(
        self,
        *,
        max_requests_per_s_per_client: int = 0,
        max_requests_per_s_per_network: int = 0,
        max_requests_per_s: int = 0,
        max_bytes_per_s_per_client: int = 0,
        max_bytes_per_s_per_network: int = 0,
        max_bytes_per_s: int = 0,
        max_unproven_bytes_per_s: int = 0,
        max_transfers_per_network: int = 0,
        max_half_open_per_network: int = 0,
        max_transfers_per_client: int = 0,
        rules_pace: bool = False,
    ) -> None: ...
    def fileno(self) -> int: ...
    def poll(self) -> list[Event]: ...
    def start(
        self,
        plan: Plan,
        flow: tuple[int, bytes, bytes] | None = None,
        *,
        wake: bool = True,
        limits: ClientLimits | None = None,
    ) -> None: ...
    def wake(self) -> None: ...
    def refuse(self, transfer_id: int, datagram: bytes) -> None: ...
    def refuse_all(self, answers: Iterable[tuple[int, bytes]]) -> None: ...
    def supply(self, transfer_id: int, fd: int, limit_bytes: int = 0) -> None: ...
    def commit(self, transfer_id: int, code: int = -1, text: bytes = b"", error: int = 0) -> None: ...
    def abort(self, transfer_id: int, code: int = 0, text: bytes = b"aborted") -> None: ...
    def abort_asked(self, context: Any, code: int = 0, text: bytes = b"aborted") -> None: ...
    def ask_progress(self, context: Any) -> None: ...
    def ask(
        self,
        plan: Plan,
        fd: int | None,
        peer: bytes,
        *,
        gro: bool = False,
        local: bytes = b"",
        worker: int = -1,
    ) -> None: ...
    def resume(self, transfer_id: int, plan: Plan) -> None: ...
    def drain(self) -> None: ...
    def forget_flows(self) -> None: ...
    def set_classes(self, classes: ClientClasses | None) -> None: ...
    def stop(self) -> None: ...
    def is_sick(self, device: int) -> bool: ...
    @property
    def hung_threads(self) -> int: ...
    def counters(self, worker: int | None = None) -> Counters: ...
    def live_objects(self) -> dict[str, int]: ...
