"""What the server would answer to one request, and why: asked of the code that answers it.

    settings, who asks for what ─► machine ─► rewriting ─► meanings of the name, each: rule, roots ─► handler, template,
    file ─► options ─► Explanation

    explanation   what is asked, and what is told          who          which machine asks
    walk          the meanings of a name, listened to      rules_told   rules and roots of one of them
    reads, writes an RRQ, a WRQ

May know: the server's parts that decide. Must not start an engine, call a handler or change anything: it makes no file
and sweeps no directory.

Invariant: what is said to be the answer is the verdict of `FileDecider`, or of what an upload begins with; the steps
before it are noted on the way there, or asked of the same objects.
"""

import asyncio

import msgspec
from msgspec import Struct

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import BadPacket, ConfigError, OptionalMissingError, RefusedError
from snow_owl_tftp.operate.explain.explanation import Explanation, MeaningTried, Question, Rewriting
from snow_owl_tftp.operate.explain.reads import decide_read, tell_accepted, tell_meanings
from snow_owl_tftp.operate.explain.rules_told import said_of
from snow_owl_tftp.operate.explain.who import known_machines
from snow_owl_tftp.operate.explain.writes import begin_and_leave, tell_names
from snow_owl_tftp.operate.log_places import refuse_inventory_below_root, refuse_logs_below_root
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.policy.client_limits import ClientLimits
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Request, build_request, parse_request_untrusted
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.sources import open_root
from snow_owl_tftp.server.verdict import Accepted

__all__ = ["Explanation", "MeaningTried", "Question", "explain"]

_EVERY = ("0.0.0.0", "::")


class _Request(Struct, frozen=True):
    """Has the shape of the engine's Request."""

    peer: tuple[str, int]
    datagram: bytes
    local_address: str | None = None
    transfer_id: int = 0
    endpoint: int = 0

    def charge(self, limits: ClientLimits | None) -> None:
        """See IncomingRequest.charge: as a client of whom nothing is known."""


def explain(settings: Settings, asked: Question) -> Explanation:
    """Decide about a request as the server would.

    Args:
        settings: All of them.
        asked: The request.

    Raises:
        ConfigError: The settings are none that a server starts with, or the request is none that can be sent.
    """
    kind = Opcode.WRQ if asked.is_write else Opcode.RRQ
    try:
        datagram = build_request(kind, asked.name, options=asked.options)
        request = parse_request_untrusted(datagram)
    except (ValueError, BadPacket) as error:
        raise ConfigError(f"no client can send this: {error}") from error
    refuse_logs_below_root(settings)
    open_root(settings.root_dir, settings.link_targets).close()
    refuse_inventory_below_root(settings)
    told = Explanation()
    with known_machines(settings, asked.mac, told.notes) as machines:
        _explain(
            settings,
            asked,
            _Request((asked.client, 0), datagram, _local_address(settings, asked)),
            request,
            machines,
            told,
        )
    return told


def _local_address(settings: Settings, asked: Question) -> str | None:
    """Ours, where the server has to be told by each request."""
    host, port = asked.listen
    binds = settings.bind_addresses
    return host if (host, port) not in binds and any((every, port) in binds for every in _EVERY) else None


def _asks_where(settings: Settings) -> bool:
    """Whether rules or templates may look at the address that was asked."""
    in_rules = any(rule.listen or any("{server_address}" in root for root in rule.roots) for rule in settings.rules)
    return in_rules or bool(settings.templates)


def _explain(
    settings: Settings, asked: Question, incoming: _Request, request: Request, machines: Machines, told: Explanation
) -> None:
    host, port = asked.listen
    if host in _EVERY:
        host = ""  # each request says it, and nobody said it here
        if _asks_where(settings):
            told.notes.append("which of our addresses is asked matters here: name it with --listen")
    generation = Generation.of(settings, Listening(((host, port),)), machines)
    told.limits, told.seeks_machine = _limits_of(settings, asked), machines is not NO_MACHINES
    if generation.rewrites is not None:
        generation.rewrites.apply(
            request.filename,
            asked.client,
            is_write=asked.is_write,
            note=lambda where, deed: told.rewriting.append(Rewriting(where, deed)),
        )
    if asked.is_write:
        tell_names(generation, incoming, request, told)
    if asked.is_write and settings.write_config.enabled:
        try:
            negotiated, _ = begin_and_leave(settings, generation, incoming, request, told)
            _tell_served(negotiated, told)
        except RefusedError as error:
            _tell_refusal(error, told)
        _tell_limits_of_rule(settings, told)
        return
    verdict, steps = asyncio.run(decide_read(settings, generation, incoming, asked, told))
    if not asked.is_write:
        tell_meanings(generation, incoming, request, steps, asked, told)
    if isinstance(verdict, Accepted):
        negotiated = verdict.plan.context.negotiated
        tell_accepted(verdict, told)
        _tell_served(negotiated, told)
    else:
        _tell_refusal(verdict.cause, told)
    if told.handler:
        told.is_served = None
    _tell_limits_of_rule(settings, told)


def _tell_refusal(error: Exception, told: Explanation) -> None:
    if not isinstance(error, RefusedError):
        raise error
    told.why = error.why
    told.rule = error.rule or told.rule
    told.error = None if error.is_silent else int(error.code)
    told.answer = "silence" if error.is_silent else str(error)
    told.is_optional = isinstance(error, OptionalMissingError)
    if told.meanings:
        told.meanings[-1].result = told.meanings[-1].result or said_of(error)


def _tell_served(negotiated: Negotiated, told: Explanation) -> None:
    told.is_served, told.answer = True, "OACK" if negotiated.oack else "no options"
    told.options = dict(negotiated.accepted)
    if negotiated.patience_ns:
        told.limits["patience_ms"] = negotiated.patience_ns // 1_000_000


def _tell_limits_of_rule(settings: Settings, told: Explanation) -> None:
    """In the place of those of each client."""
    if not told.rule:
        return
    for key, value in msgspec.structs.asdict(settings.rules[told.rule - 1].limits).items():
        if value is not None:
            told.limits.pop(f"limits.max_{key}_per_client", None)
            told.limits[f"rules[{told.rule}].limits.{key}"] = value


def _limits_of(settings: Settings, asked: Question) -> dict[str, int]:
    of_files = {"max_file_size_bytes": settings.max_file_size_bytes}
    if asked.is_write:
        of_files["write_config.max_total_bytes"] = settings.write_config.max_total_bytes
    of_all = {f"limits.{key}": value for key, value in msgspec.structs.asdict(settings.limits).items()}
    return {key: value for key, value in {**of_files, **of_all}.items() if value}
