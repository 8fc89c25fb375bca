"""Settings to an Engine: every number that the engine takes comes from here, with its unit changed on the way.

May know: settings, sockets and the engine's constructor. Must not start it, decide or log.
"""

from typing import Any, Final

from snow_owl_tftp._engine.engine import Engine
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.policy.client_limits import let_through
from snow_owl_tftp.server.sockets import BoundAddress

__all__ = ["hand_over", "live_limits", "make_engine", "tuning"]

_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000

_REQUEST_SLOT_BYTES: Final = 2048
"""Room for one received datagram where only requests, ACKs and ERRORs arrive: four times the longest request."""
_PROOF_WINDOWS: Final = 8
"""Each answered window is three bits of 24, and what is answered late or lost is not given back: networks.pxd."""
_TRAIN_SLOT_BYTES: Final = 65536
"""Room for what UDP_GRO may join, and for the longest DATA; what does not fit a slot is lost (udp(7))."""


def make_engine(settings: Settings) -> Engine:
    """Build an engine that has no sockets yet and does not run.

    Raises:
        OSError: Memory or descriptors are short.
    """
    engine = Engine(
        workers=settings.worker_count,
        slot_bytes=_slot_bytes(settings),
        **_file_io(settings),
        **tuning(settings),
        **_limits(settings),
        **_timers(settings),
    )
    engine.set_limits(**live_limits(settings))
    return engine


def hand_over(engine: Engine, addresses: list[BoundAddress]) -> None:
    """Give every socket to the engine, which closes it from now on.

    Raises:
        OSError: The engine could not take one; what it did not take stays open and the caller's.
    """
    for endpoint, address in enumerate(addresses):
        wildcard = address.is_wildcard
        for worker, listener in enumerate(address.listeners):
            engine.add_listener(worker, endpoint, listener.fileno(), wildcard=wildcard, wants_control=wildcard)
            listener.detach()
        tids_tell = wildcard or address.joins_datagrams
        for worker, pool in enumerate(address.tids):
            for tid in pool:
                engine.add_tid(worker, endpoint, tid.fileno(), wildcard=wildcard, wants_control=tids_tell)
                tid.detach()


def _slot_bytes(settings: Settings) -> int:
    if not settings.write_config.enabled:
        return _REQUEST_SLOT_BYTES
    return _TRAIN_SLOT_BYTES


def tuning(settings: Settings) -> dict[str, Any]:
    """Return what an engine takes at its start, and by `set_tuning` while it runs."""
    batch = settings.performance.platform.batch
    return {
        "max_batch": batch.max_batch_size,
        "linger_us": batch.batch_timeout_us,
        "adaptive": batch.enable_adaptive_batching,
        "adaptive_threshold": batch.adaptive_batch_threshold,
        "recvmmsg": batch.enable_recvmmsg,
        "sendmmsg": batch.enable_sendmmsg,
        "gso": batch.enable_gso,
        "flows": batch.enable_flows,
        "tell_modes": settings.logging.level == "debug",
    }


def _file_io(settings: Settings) -> dict[str, Any]:
    file_io = settings.performance.platform.file_io
    return {"io_threads": file_io.io_threads, "source_linger_ns": file_io.source_linger_s * _NS_PER_S}


def _limits(settings: Settings) -> dict[str, Any]:
    limits = settings.limits
    return {
        "max_transfers": limits.max_transfers,
        "max_transfers_per_client": limits.max_transfers_per_client,
        "max_half_open": limits.max_half_open,
        "max_half_open_per_client": limits.max_half_open_per_client,
        "max_pending_requests": limits.max_pending_requests,
        "network_bytes": _network_bytes(settings),
    }


def live_limits(settings: Settings) -> dict[str, Any]:
    """Return what an engine takes by `set_limits`, before its start and while it runs."""
    limits = settings.limits
    requests_per_s, transfers = let_through(settings.rules, limits)
    return {
        "max_transfers_per_client": transfers if transfers > limits.max_transfers_per_client else 0,
        "rules_pace": any(rule.limits.bytes_per_s for rule in settings.rules),
        "max_transfers_per_network": limits.max_transfers_per_network,
        "max_half_open_per_network": limits.max_half_open_per_network,
        "max_requests_per_s_per_client": requests_per_s,
        "max_requests_per_s_per_network": limits.max_requests_per_s_per_network,
        "max_requests_per_s": limits.max_requests_per_s,
        "max_bytes_per_s_per_client": limits.max_bytes_per_s_per_client,
        "max_bytes_per_s_per_network": limits.max_bytes_per_s_per_network,
        "max_bytes_per_s": limits.max_bytes_per_s,
        "max_unproven_bytes_per_s": limits.max_unproven_bytes_per_s,
    }


def _network_bytes(settings: Settings) -> int:
    """What a network may be sent before a client of it has shown that it hears us: that takes several windows."""
    share_bytes = settings.limits.max_unproven_network_bytes
    return max(share_bytes, _PROOF_WINDOWS * settings.options.max_window_bytes) if share_bytes else 0


def _timers(settings: Settings) -> dict[str, Any]:
    timer = settings.retransmit
    return {
        "initial_ns": timer.initial_ms * _NS_PER_MS,
        "floor_ns": timer.floor_ms * _NS_PER_MS,
        "ceiling_ns": timer.ceiling_ms * _NS_PER_MS,
        "give_up_ns": timer.give_up_s * _NS_PER_S,
        "half_open_give_up_ns": timer.half_open_give_up_s * _NS_PER_S,
        "stalled_give_up_ns": timer.stalled_give_up_s * _NS_PER_S,
        "half_open_datagrams": timer.half_open_max_datagrams,
    }
