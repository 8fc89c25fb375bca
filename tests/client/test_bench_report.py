"""Tables out of runs that were never made: what is shown, and what must not be."""

import json
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.client.bench.report import figures_of, machine, write
from snow_owl_tftp.client.bench.runs import Run, median_run
from snow_owl_tftp.client.bench.settings import Network, Target, Workload, human_bytes
from snow_owl_tftp.client.bench.sweeps import (
    ORIGIN_CLIENTS,
    ORIGIN_SIZES,
    Result,
    linger_targets,
    origin_steps,
    origin_workload,
    standard_steps,
)

WORKLOAD = Workload(clients=50, transfers=100, file_bytes=102400)


def load(**changed: Any) -> dict[str, Any]:
    said = {
        "transfers": 100,
        "finished": 100,
        "failed": 0,
        "wrong_bytes": 0,
        "failures": {},
        "blocks": 20_000,
        "payload_bytes": 10_240_000,
        "wall_s": 0.5,
        "p50_s": 0.01,
        "p99_s": 0.02,
        "max_s": 0.03,
        "latency_quantiles_s": [0.01, 0.02, 0.03],
        "client_retransmits": 0,
        "duplicates_received": 0,
    }
    return {**said, **changed}


def timed(cpu_s: float = 0.1, **changed: Any) -> Run:
    return Run("x", WORKLOAD, load(**changed), server_cpu_s=cpu_s, cpu_counted_by="a test")


def traced(recvmmsg: int, recvfrom: int, sends: int, datagrams: int = 20_000) -> Run:
    calls = {"recvmmsg": recvmmsg, "recvfrom": recvfrom, "sendmmsg": sends}
    receives = recvmmsg + recvfrom
    derived = {
        "receive_calls": receives,
        "send_calls": sends,
        "datagrams_per_receive_call": datagrams / receives,
        "batch_efficiency": recvmmsg / receives,
        "empty_receive_share": 0.0,
    }
    trace = {"calls": {name: {"calls": n, "datagrams": n} for name, n in calls.items()}, "derived": derived}
    return Run("x", WORKLOAD, load(), trace=trace)


def report(folder: Path, results: list[Result], notes: str = "") -> str:
    write(folder, machine(0, 1, "a test"), results, ["one.png"], notes)
    return (folder / "report.md").read_text()


def test_speeds_follow_from_blocks_bytes_and_time() -> None:
    run = timed(cpu_s=0.1)
    assert run.blocks_per_s == pytest.approx(40_000)
    assert run.mb_per_s == pytest.approx(20.48)
    assert run.cpu_us_per_block == pytest.approx(5.0)


@pytest.mark.parametrize(
    "run",
    [
        timed(failed=1, failures={"TIMED_OUT: no answer": 1}),
        timed(failed=1, wrong_bytes=1, failures={"CHANGED: content differs": 1}),
        Run("x", WORKLOAD, problem="it did not become ready"),
    ],
)
def test_run_with_one_failure_has_no_speed(run: Run, tmp_path: Path) -> None:
    assert not run.is_valid
    assert run.blocks_per_s is run.mb_per_s is run.cpu_us_per_block is None
    said = report(tmp_path, [Result("main", Target("x"), run)])
    assert "no figure" in said
    assert "40,000" not in said
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["runs"][0]["is_valid"] is False
    assert written["runs"][0]["blocks_per_s"] is None


def test_traced_run_has_no_speed() -> None:
    run = traced(1000, 0, 1000)
    assert run.is_valid
    assert run.blocks_per_s is None
    assert run.cpu_us_per_block is None


def test_median_round_stands_for_all_and_a_failed_one_before_any() -> None:
    rounds = [timed(cpu_s=cpu_s) for cpu_s in (0.3, 0.1, 0.2)]
    assert median_run(rounds).server_cpu_s == 0.2
    failed = timed(failed=1)
    assert median_run([*rounds, failed]) is failed


def test_figures_are_those_of_one_target() -> None:
    results = [Result("main", Target("a"), timed()), Result("main", Target("b"), traced(10, 0, 10))]
    assert figures_of(results, "a")[1] is None
    assert figures_of(results, "b")[0] is None


def test_row_has_calls_per_block(tmp_path: Path) -> None:
    results = [Result("main", Target("ours"), timed()), Result("main", Target("ours"), traced(1000, 0, 2000))]
    said = report(tmp_path, results)
    assert "| ours | 40,000 | 20.5 | 5.00 | 10.0 | 20.0 | 30.0 |" in said
    assert "| 0.0500 | 0.1000 | 20.00 | 100.00 % | 0.00 % |" in said
    assert "![one.png](one.png)" in said


def origin_results(ours: Run, plain: Run) -> list[Result]:
    section = f"origin {human_bytes(ORIGIN_SIZES[0])}"
    shown = next(target for target in linger_targets() if target.name == "adaptive, linger 500 µs")
    return [Result(section, Target("no batching"), plain), Result(section, shown, ours)]


def test_origin_table_compares_with_the_run_without_batching(tmp_path: Path) -> None:
    said = report(tmp_path, origin_results(traced(1_200, 3, 1_000), traced(0, 20_000, 20_000)))
    assert "## Origin 100 KiB: 50 clients" in said
    table = said[said.index("## The origin's table") :]
    assert table.index("recvmmsg calls") < table.index("send calls"), "it is the last word of the report"
    assert "| recvmmsg calls | 0 | > 1,000 | 1,200 |" in table
    assert "| recvfrom calls | 2,163 | < 500 | 3 |" in table
    assert "| −94.0 % |" in table
    assert "| 99.75 % |" in table
    assert "| 16.6 |" in table
    assert "| −95.0 % |" in table


def test_origin_table_is_not_filled_in_from_a_run_that_failed(tmp_path: Path) -> None:
    failed = Run("x", WORKLOAD, load(failed=1), trace=traced(1, 1, 1).trace)
    said = report(tmp_path, origin_results(failed, traced(0, 20_000, 20_000)))
    assert "Not filled in" in said


def test_notes_and_machine_head_the_report(tmp_path: Path) -> None:
    said = report(tmp_path, [Result("main", Target("ours"), timed())], notes="System calls were not counted: no root.")
    assert "server on core 0, load (and relay) on core 1" in said
    assert "server CPU by a test" in said
    assert "System calls were not counted: no root." in said


def test_relay_that_was_too_busy_is_named(tmp_path: Path) -> None:
    relay = {"forwarded": 1, "lost": 0, "overflowed": 0, "busy_share": 0.95}
    run = Run("x", WORKLOAD, load(), server_cpu_s=0.1, relay=relay)
    assert "(limit of the relay)" in report(tmp_path, [Result("main", Target("x"), run)])


def test_rounds_alternate_between_servers_and_traces_are_apart() -> None:
    targets = [Target("a"), Target("b")]
    steps = standard_steps(targets, WORKLOAD, 2, with_sweeps=False, can_trace=True)
    assert [(step.target.name, step.is_traced) for step in steps] == [
        ("a", False),
        ("b", False),
        ("a", False),
        ("b", False),
        ("a", True),
        ("b", True),
    ]
    assert not any(step.is_traced for step in standard_steps(targets, WORKLOAD, 1, with_sweeps=True, can_trace=False))


def test_clients_are_swept_up_to_what_was_asked() -> None:
    steps = standard_steps([Target("a")], WORKLOAD, 1, with_sweeps=True, can_trace=False)
    swept = [step.workload for step in steps if step.section == "clients"]
    assert [workload.clients for workload in swept] == [1, 2, 5, 10, 20, 50]
    assert all(workload.transfers % workload.clients == 0 for workload in swept)


def test_origin_profile_is_the_issue_s() -> None:
    steps = origin_steps(1, has_classical=True, can_trace=True)
    assert {step.workload.file_bytes for step in steps} == {102_400, 10_485_760}
    assert {step.workload.clients for step in steps} == {ORIGIN_CLIENTS}
    assert {step.workload.blksize_bytes for step in steps} == {512}
    batches = {
        (step.target.batch["enable_adaptive_batching"], step.target.batch["batch_timeout_us"])
        for step in steps
        if "batch_timeout_us" in step.target.batch
    }
    assert batches == {(adaptive, us) for adaptive in (False, True) for us in (0, 100, 500, 1000, 2000)}
    assert {"no batching", "classical", "classical, no recvmmsg"} <= {step.target.name for step in steps}
    assert all(origin_workload(size).transfers % 50 == 0 for size in ORIGIN_SIZES)


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(102_400, "100 KiB"), (1 << 20, "1 MiB"), (0, "0 bytes"), (1000, "1000 bytes")]
)
def test_sizes_are_shown_in_whole_units(size_bytes: int, text: str) -> None:
    assert human_bytes(size_bytes) == text


def test_workload_is_told_in_words() -> None:
    bad = Workload(clients=2, file_bytes=1024, network=Network(rtt_ms=20, loss_percent=0.5))
    assert bad.text == "2 clients, 1 KiB, blksize 512, windowsize 1, RTT 20 ms, loss 0.5 %"
