"""Tables out of runs that were never made: what is shown, and what must not be."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.bench.figures import Rounds, figures_of
from snow_owl_tftp.bench.provenance import machine, without_paths
from snow_owl_tftp.bench.report import write
from snow_owl_tftp.bench.runs import Run
from snow_owl_tftp.bench.settings import BenchTarget, Network, Workload, human_bytes
from snow_owl_tftp.bench.sweeps import (
    PROFILE_CLIENTS,
    PROFILE_SIZES_BYTES,
    Result,
    classical_targets,
    linger_targets,
    profile_steps,
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
        "cut_off": 0,
        "load_cpu_s": 0.3,
        "granted": {"blksize_bytes": 512, "windowsize_blocks": 1},
    }
    return {**said, **changed}


def timed(cpu_s: float | None = 0.1, **changed: Any) -> Run:
    return Run("x", WORKLOAD, load(**changed), server_cpu_s=cpu_s, cpu_counted_by="a test")


def traced(recvmmsg: int, recvfrom: int, sends: int, datagrams: int = 20_000) -> Run:
    calls = {"recvmmsg": recvmmsg, "recvfrom": recvfrom, "sendmmsg": sends, "epoll_pwait2": 500, "pread64": 40}
    receives = recvmmsg + recvfrom
    derived = {
        "receive_calls": receives,
        "send_calls": sends,
        "datagrams_per_receive_call": datagrams / receives,
        "batch_efficiency": recvmmsg / receives,
        "empty_receive_share": 0.0,
    }
    trace = {"calls": {name: {"calls": n, "datagrams": n} for name, n in calls.items()}, "derived": derived}
    return Run("x", WORKLOAD, load(), trace=trace, is_traced=True)


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
    said = report(tmp_path, [Result("main", BenchTarget("x"), run)])
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


def test_every_figure_is_the_median_of_its_own() -> None:
    # By CPU the second round is the middle one, by time the third, by p99 the first.
    rounds = Rounds(
        (
            timed(cpu_s=0.1, wall_s=0.5, p99_s=0.02),
            timed(cpu_s=0.2, wall_s=2.0, p99_s=0.01),
            timed(cpu_s=0.3, wall_s=1.0, p99_s=0.03),
        )
    )
    assert rounds.median(lambda run: run.cpu_us_per_block) == pytest.approx(10.0)
    assert rounds.median(lambda run: run.blocks_per_s) == pytest.approx(20_000)
    assert rounds.median(lambda run: run.load["p99_s"]) == 0.02
    assert rounds.spread(lambda run: run.blocks_per_s) == pytest.approx((10_000, 40_000))


def test_one_failed_round_leaves_no_figure() -> None:
    failed = timed(failed=1)
    rounds = Rounds((timed(), failed, timed()))
    assert rounds.failed is failed
    assert rounds.median(lambda run: run.load["p99_s"]) is None


def test_traced_run_that_failed_is_no_timed_one() -> None:
    broken = Run("x", WORKLOAD, problem="trace: bpftrace did not attach", is_traced=True)
    shown, traced_rounds = figures_of([Result("main", BenchTarget("x"), run) for run in (timed(), broken)], "x")
    assert shown is not None
    assert shown.is_valid
    assert traced_rounds is not None
    assert traced_rounds.failed is broken


def test_figures_are_those_of_one_target() -> None:
    results = [Result("main", BenchTarget("a"), timed()), Result("main", BenchTarget("b"), traced(10, 0, 10))]
    assert figures_of(results, "a")[1] is None
    assert figures_of(results, "b")[0] is None


def test_row_has_calls_per_block(tmp_path: Path) -> None:
    results = [Result("main", BenchTarget("ours"), timed()), Result("main", BenchTarget("ours"), traced(1000, 0, 2000))]
    said = report(tmp_path, results)
    assert "| ours | 512 B × 1 | 40,000 | 40,000 – 40,000 | 20.5 | 5.00 | 15.00 | 10.0 | 20.0 | 30.0 |" in said
    assert "| 0.0500 | 0.1000 | 0.0250 | 0.0020 | 20.00 | 100.00 % | 0.00 % |" in said
    assert "counted by eBPF" in said
    assert "![one.png](one.png)" in said


def test_nothing_is_said_of_calls_that_were_not_counted(tmp_path: Path) -> None:
    said = report(tmp_path, [Result("recvmmsg 100 KiB", target, timed()) for target in classical_targets()])
    assert "eBPF" not in said
    assert "calls/block" not in said
    assert "Why the earlier Rust server saw" not in said


def test_what_limits_a_figure_is_marked(tmp_path: Path) -> None:
    stolen = Run("x", WORKLOAD, load(load_cpu_s=0.499), server_cpu_s=0.1, steal_share=0.07)
    said = report(tmp_path, [Result("main", BenchTarget("x"), run) for run in (timed(), stolen)])
    assert "(7 % stolen)" in said
    assert "(limit of the load)" in said
    said = report(tmp_path, [Result("main", BenchTarget("x"), timed())])
    assert "stolen" not in said
    assert "limit of" not in said


def test_transfers_of_which_none_ended_have_blocks_and_no_latency(tmp_path: Path) -> None:
    run = timed(finished=0, cut_off=50, p50_s=None, p99_s=None, max_s=None, latency_quantiles_s=[None] * 3)
    said = report(tmp_path, [Result("main", BenchTarget("x"), run)])
    assert "| 40,000 |" in said
    assert "| – | – | – |" in said
    assert "cut off" in said


def test_what_was_not_measured_is_said_and_no_figure(tmp_path: Path) -> None:
    run = Run("x", WORKLOAD, {key: value for key, value in load().items() if key != "load_cpu_s"})
    write(tmp_path, machine(0, 1, ""), [Result("main", BenchTarget("x"), run)], [], "")
    said = (tmp_path / "report.md").read_text()
    assert "; server CPU not measured." in said
    assert "| 20.5 | not measured | not measured | 10.0 |" in said
    written = json.loads((tmp_path / "results.json").read_text())["runs"][0]
    assert [written[name] for name in ("server_cpu_s", "cpu_us_per_block", "load_cpu_us_per_block")] == [None] * 3
    assert written["steal_share"] is None


def test_one_round_without_cpu_leaves_no_figure_of_it(tmp_path: Path) -> None:
    said = report(tmp_path, [Result("main", BenchTarget("x"), timed(cpu_s=cpu_s)) for cpu_s in (0.1, None, 0.1)])
    assert "| 20.5 | not measured | 15.00 |" in said


def test_nothing_is_divided_by_blocks_that_did_not_come(tmp_path: Path) -> None:
    run, counted = timed(blocks=0, payload_bytes=0), traced(10, 0, 10)
    counted.load["blocks"] = 0
    assert run.is_valid
    assert run.cpu_us_per_block is run.load_cpu_us_per_block is None
    said = report(tmp_path, [Result("main", BenchTarget("x"), one) for one in (run, counted)])
    assert "| not measured | not measured |" in said
    assert "| – | – | – | – | 2,000.00 |" in said or "| – | – | – | – | 2000.00 |" in said


def test_share_without_calls_is_a_dash_and_no_percentage(tmp_path: Path) -> None:
    counted = traced(10, 0, 10)
    assert counted.trace is not None
    counted.trace["derived"] |= {"batch_efficiency": None, "empty_receive_share": None}
    said = report(tmp_path, [Result("main", BenchTarget("x"), one) for one in (timed(), counted)])
    assert said.rstrip().endswith("![one.png](one.png)")
    assert "| – | – |" in said
    assert "– %" not in said


def test_what_the_relay_saw_repeated_is_the_server_s(tmp_path: Path) -> None:
    relay = {"forwarded": 1, "lost": 0, "overflowed": 0, "busy_share": 0.1, "repeated_by_server": 17}
    run = Run("x", WORKLOAD, load(), server_cpu_s=0.1, relay=relay)
    assert "17 DATA by the server" in report(tmp_path, [Result("main", BenchTarget("x"), run)])


def test_classical_page_states_its_bound(tmp_path: Path) -> None:
    target = BenchTarget("classical, linger 500 µs", "classical")
    said = report(tmp_path, [Result("recvmmsg 100 KiB", target, traced(100, 19_900, 20_000))])
    page = said[said.index("## Why the earlier Rust server saw") :]
    assert "one datagram a transfer, 0.5 % of 100 KiB" in page
    assert "| 100 KiB | classical, linger 500 µs | 1.0000 | 100 | 0.500 % | 1.00 | 1.00 |" in page
    assert "a flag that it does not have" in page


def test_report_names_its_commit_arguments_and_peers(tmp_path: Path) -> None:
    setting = machine(0, 1, "a test", arguments=["--clients", "5"], servers=["ours", "dnsmasq"])
    assert "ours" not in setting["peers"]
    setting.update(commit="abc1234 dirty", peers={"dnsmasq": "Dnsmasq version 2.90"})
    write(tmp_path, setting, [Result("main", BenchTarget("ours"), timed())], [], "")
    said = (tmp_path / "report.md").read_text()
    for part in ("(abc1234 dirty)", "`snow-owl-tftp bench --clients 5`", "dnsmasq: Dnsmasq version 2.90"):
        assert part in said
    assert platform.node() not in said
    assert json.loads((tmp_path / "results.json").read_text())["machine"]["date"] == setting["date"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("open /dev/shm/snow-owl-bench-x/root/f: no", "open …/f: no"),
        ("/usr/bin/gcc: error", "…/gcc: error"),
        ("230,000 blocks/s at 1/2 of 127.0.0.1", "230,000 blocks/s at 1/2 of 127.0.0.1"),
    ],
)
def test_paths_of_this_machine_are_not_shown(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def profile_results(ours: Run, plain: Run) -> list[Result]:
    section = f"recvmmsg {human_bytes(PROFILE_SIZES_BYTES[0])}"
    shown = next(target for target in linger_targets() if target.name == "adaptive, linger 500 µs")
    return [Result(section, BenchTarget("no batching"), plain), Result(section, shown, ours)]


def test_earlier_table_compares_with_the_run_without_batching(tmp_path: Path) -> None:
    said = report(tmp_path, profile_results(traced(1_200, 3, 1_000), traced(0, 20_000, 20_000)))
    assert "## recvmmsg 100 KiB: 50 clients" in said
    table = said[said.index("## The earlier Rust server's table") :]
    assert table.index("recvmmsg calls") < table.index("send calls"), "it is the last word of the report"
    assert "| recvmmsg calls | 0 | > 1,000 | 1,200 |" in table
    assert "| recvfrom calls | 2,163 | < 500 | 3 |" in table
    assert "| −94.0 % |" in table
    assert "| 99.75 % |" in table
    assert "| 16.6 |" in table
    assert "| −95.0 % |" in table


def test_earlier_table_is_not_filled_in_from_a_run_that_failed(tmp_path: Path) -> None:
    failed = Run("x", WORKLOAD, load(failed=1), trace=traced(1, 1, 1).trace, is_traced=True)
    said = report(tmp_path, profile_results(failed, traced(0, 20_000, 20_000)))
    assert "Not filled in" in said


def test_notes_and_machine_head_the_report(tmp_path: Path) -> None:
    said = report(
        tmp_path, [Result("main", BenchTarget("ours"), timed())], notes="System calls were not counted: no root."
    )
    assert "server on core 0, load (and relay) on core 1" in said
    assert "server CPU by a test" in said
    assert "System calls were not counted: no root." in said


def test_relay_that_was_too_busy_is_named(tmp_path: Path) -> None:
    relay = {"forwarded": 1, "lost": 0, "overflowed": 0, "busy_share": 0.95}
    run = Run("x", WORKLOAD, load(), server_cpu_s=0.1, relay=relay)
    assert "(limit of the relay)" in report(tmp_path, [Result("main", BenchTarget("x"), run)])


def test_rounds_alternate_between_servers_and_traces_are_apart() -> None:
    targets = [BenchTarget("a"), BenchTarget("b")]
    steps = standard_steps(targets, WORKLOAD, 2, chosen=["main"])
    assert [(step.target.name, step.is_traced) for step in steps] == [
        ("a", False),
        ("b", False),
        ("a", False),
        ("b", False),
        *[("a", True), ("b", True)] * 2,
    ]


def test_clients_are_swept_up_to_what_was_asked() -> None:
    steps = standard_steps([BenchTarget("a")], WORKLOAD, 2, chosen=["clients"])
    swept = [step.workload for step in steps]
    assert [workload.clients for workload in swept] == [1, 2, 5, 10, 20, 50] * 2
    assert all(workload.transfers % workload.clients == 0 for workload in swept)


def test_linger_is_swept_for_ours_alone_and_every_round() -> None:
    def swept(server: str) -> list[str]:
        steps = standard_steps([BenchTarget("x", server)], WORKLOAD, 2, chosen=["linger"])
        return [step.target.name for step in steps if not step.is_traced]

    assert swept("dnsmasq") == []
    assert swept("ours") == ["no batching", *(target.name for target in linger_targets())] * 2


def test_traced_rounds_are_at_most_three() -> None:
    steps = standard_steps([BenchTarget("a")], WORKLOAD, 9, chosen=["main"])
    assert [step.is_traced for step in steps] == [False] * 9 + [True] * 3


def test_limits_follow_the_network() -> None:
    near = Workload(clients=1, transfers=1, file_bytes=1 << 20)
    far = Workload(clients=1, transfers=1, file_bytes=1 << 20, network=Network(rtt_ms=2000))
    assert near.time_limit_s == 120
    assert near.timeout_s == 4
    assert far.time_limit_s > far.blocks_each * 2
    assert far.timeout_s == 8
    assert Workload(file_bytes=1 << 20, network=Network(0, 50)).transfer_s > 1000


def test_lossy_run_is_long_enough_for_losses_in_a_row() -> None:
    lossy = Workload(file_bytes=1024, network=Network(2, 1)).timed(2)
    assert lossy.timeout_s == 1
    assert lossy.stop_after_s is not None
    assert lossy.stop_after_s / 2 >= 4 * lossy.timeout_s
    assert Workload(file_bytes=1024).timed(2).stop_after_s == 2


def test_profile_is_what_was_asked_for() -> None:
    steps = profile_steps(1, has_classical=True)
    assert {step.workload.file_bytes for step in steps} == {102_400, 10_485_760}
    assert {step.workload.clients for step in steps} == {PROFILE_CLIENTS}
    assert {step.workload.blksize_bytes for step in steps} == {512}
    batches = {
        (step.target.batch["enable_adaptive_batching"], step.target.batch["batch_timeout_us"])
        for step in steps
        if "batch_timeout_us" in step.target.batch
    }
    assert batches == {(adaptive, us) for adaptive in (False, True) for us in (0, 100, 500, 1000, 2000)}
    assert {"no batching", "classical, no recvmmsg"} <= {step.target.name for step in steps}
    lingers = {step.target.batch["linger_us"] for step in steps if step.target.server == "classical"}
    assert lingers == {0, 500, 2000}


def test_profile_takes_less_than_a_quarter_of_an_hour() -> None:
    steps = profile_steps(3, has_classical=True)
    # Starting and ending the processes of a run takes a second, attaching a tracer two more.
    took_s = sum((step.workload.stop_after_s or 1e9) + (3 if step.is_traced else 1) for step in steps)
    assert took_s < 900


def test_profile_can_be_narrowed_to_one_size() -> None:
    steps = profile_steps(1, has_classical=False, sizes_bytes=[102_400])
    assert {step.section for step in steps} == {"recvmmsg 100 KiB"}


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(102_400, "100 KiB"), (1 << 20, "1 MiB"), (0, "0 bytes"), (1000, "1000 bytes")]
)
def test_sizes_are_shown_in_whole_units(size_bytes: int, text: str) -> None:
    assert human_bytes(size_bytes) == text


def test_workload_is_told_in_words() -> None:
    bad = Workload(clients=2, file_bytes=1024, network=Network(rtt_ms=20, loss_percent=0.5))
    assert bad.text == "2 clients, 1 KiB, blksize 512, windowsize 1, RTT 20 ms, loss 0.5 %"
