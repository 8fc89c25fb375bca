"""The pages of `--profile recvmmsg`: the earlier Rust server's table filled in, and the classical layout beside ours.

May know: results. Must not run anything.
Invariants: nothing is concluded where the traced runs are missing or failed.
"""

from collections.abc import Sequence
from typing import Final

from snow_owl_tftp.bench.figures import Rounds, figures_of
from snow_owl_tftp.bench.markdown import change, number, percent, table
from snow_owl_tftp.bench.runs import Run
from snow_owl_tftp.bench.sweeps import NO_BATCHING, Result, classical_targets

__all__ = ["PREFIX", "SHOWN", "classical_page", "earlier_table"]

PREFIX: Final = "recvmmsg "
"""Of the sections' names."""
SHOWN: Final = "adaptive, linger 500 µs"
"""The configuration whose figures stand in that table: examples/config/with-batch.toml."""
_EARLIER_TABLE: Final = (
    ("recvmmsg calls", "0", "> 1,000"),
    ("recvfrom calls", "2,163", "< 500"),
    ("receive calls against no batching", "−27 %", "−60 to −80 %; here at least −90 %"),
    ("batch efficiency recvmmsg/(recvmmsg+recvfrom+recvmsg)", "0 %", "> 80 %; here at least 99 %"),
    ("datagrams per receive call", "", "at least 10 at 50 clients"),
    ("send calls against no batching", "−23 %", "at least −90 %"),
)


def earlier_table(results: Sequence[Result]) -> str:
    """The table with which the project began, filled in from one section."""
    _, ours = figures_of(results, SHOWN)
    _, plain = figures_of(results, NO_BATCHING.name)
    head = f"## The earlier Rust server's table: {results[0].run.workload.text}; ours: {SHOWN}"
    if ours is None or plain is None or not (ours.is_valid and plain.is_valid):
        return f"{head}\n\nNot filled in: the traced runs are missing or failed (see above)."
    figures = (
        number(ours.median(lambda run: calls(run, "recvmmsg")), ",.0f"),
        number(ours.median(lambda run: calls(run, "recvfrom") + calls(run, "recvmsg")), ",.0f"),
        change(*(rounds.median(lambda run: per_block(run, "receive_calls")) for rounds in (ours, plain))),
        percent(ours.median(lambda run: derived(run, "batch_efficiency")), ".2f"),
        number(ours.median(lambda run: derived(run, "datagrams_per_receive_call")), ".1f"),
        change(*(rounds.median(lambda run: per_block(run, "send_calls")) for rounds in (ours, plain))),
    )
    rows = [[*row, figure] for row, figure in zip(_EARLIER_TABLE, figures, strict=True)]
    blocks = number(ours.median(lambda run: run.load["blocks"]), ",.0f")
    said = f"{blocks} blocks; calls of the server process only; medians of {len(ours.runs)} traced runs."
    return f"{head}\n\n{table(['metric', 'earlier', 'target', 'ours'], rows)}\n\n{said}"


def classical_page(grouped: dict[str, list[Result]]) -> str:
    """Where recvmmsg sits, as evidence; empty where no classical server was traced."""
    names = [*(target.name for target in classical_targets()), NO_BATCHING.name, SHOWN]
    found = {
        (section, name): traced
        for section, results in grouped.items()
        if section.startswith(PREFIX)
        for name in names
        if (traced := figures_of(results, name)[1]) is not None and traced.is_valid
    }
    if not any(name.startswith("classical, linger") for _, name in found):
        return ""
    rows = [[section.removeprefix(PREFIX), name, *_shares(rounds)] for (section, name), rounds in found.items()]
    headers = ["file", "server", "receive calls/block", "of them recvmmsg", "datagrams by recvmmsg"]
    headers += ["datagrams/recvmmsg", "datagrams/receive call"]
    bounds = {section: 1 / (rounds.first.workload.blocks_each + 1) for (section, _), rounds in found.items()}
    bound = ", ".join(f"{100 * share:.2g} % of {section.removeprefix(PREFIX)}" for section, share in bounds.items())
    text = (
        "## Why the earlier Rust server saw recvmmsg_calls=0\n\n"
        "`classical` binds a socket for every transfer and calls recvmmsg on the listener, as the earlier Rust server "
        "did. The listener sees one datagram a transfer, its request; each ACK arrives alone on a socket of its own. "
        f"So this layout bounds what recvmmsg can bring, whatever its timeout: one datagram a transfer, {bound}. The "
        "rows with a linger wait before each recvmmsg, as a timeout would: it can gather requests, never ACKs. With "
        "shared TID sockets the ACKs lie in one queue, and one call takes them all.\n\n"
        "That server saw exactly 0, and not so small a share, for two more reasons: it was started with a flag that "
        "it does not have, and the calls of the whole system were counted."
    )
    return f"{text}\n\n{table(headers, rows)}"


def derived(run: Run, name: str) -> float | None:
    """A derived figure of a traced run."""
    value = (run.trace or {"derived": {}})["derived"].get(name)
    return None if value is None else float(value)


def per_block(run: Run, name: str) -> float | None:
    """A derived number of calls, by the blocks that the clients got."""
    value = derived(run, name)
    return None if value is None else run.per_block(value)


def calls(run: Run, name: str) -> int:
    """Of one system call."""
    return _count(run, name, "calls")


def _count(run: Run, name: str, what: str) -> int:
    return int((run.trace or {"calls": {}})["calls"].get(name, {what: 0})[what])


def _shares(rounds: Rounds) -> list[str]:
    def batched(run: Run) -> float | None:
        received = sum(_count(run, name, "datagrams") for name in ("recvmmsg", "recvmsg", "recvfrom"))
        return _count(run, "recvmmsg", "datagrams") / received if received else None

    def a_batch(run: Run) -> float | None:
        made = calls(run, "recvmmsg")
        return _count(run, "recvmmsg", "datagrams") / made if made else None

    return [
        number(rounds.median(lambda run: per_block(run, "receive_calls")), ".4f"),
        number(rounds.median(lambda run: calls(run, "recvmmsg")), ",.0f"),
        percent(rounds.median(batched), ".3f"),
        number(rounds.median(a_batch), ".2f"),
        number(rounds.median(lambda run: derived(run, "datagrams_per_receive_call")), ".2f"),
    ]
