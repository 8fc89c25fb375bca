"""What bpftrace prints becomes figures: parsing, differences, ratios. No bpftrace is needed here."""

import errno
import json

import pytest

from snow_owl_tftp.observe.trace.counts import CallCounts, TraceCounts, bucket_label, parse_line
from snow_owl_tftp.observe.trace.script import CALLS, READY, TICK, build_script

NUMBER = {call.name: number for number, call in enumerate(CALLS)}


def results_line(*entries: tuple[str, int, int]) -> str:
    data = {f"{NUMBER[name]},{result}": calls for name, result, calls in entries}
    return json.dumps({"type": "map", "data": {"@results": data}})


def parse(*lines: str) -> TraceCounts:
    counts = TraceCounts()
    for line in lines:
        result = parse_line(line, counts)
        assert isinstance(result, TraceCounts)
        counts = result
    return counts


def test_calls_that_moved_data_are_told_from_empty_ones_and_errors() -> None:
    counts = parse(
        results_line(
            ("recvmmsg", 50, 3),
            ("recvmmsg", 1, 2),
            ("recvmmsg", -errno.EAGAIN, 4),
            ("recvmmsg", -errno.ECONNREFUSED, 1),
        )
    ).of("recvmmsg")
    assert (counts.calls, counts.moved, counts.empty, counts.datagrams) == (10, 5, 4, 152)
    assert counts.errors == {"EAGAIN": 4, "ECONNREFUSED": 1}


def test_errors_that_only_the_kernel_knows_have_their_names_there() -> None:
    named = CallCounts({-512: 1, -513: 2, -514: 3, -515: 4, -516: 5, -999: 6}).errors
    assert named == {
        "ERESTARTSYS": 1,
        "ERESTARTNOINTR": 2,
        "ERESTARTNOHAND": 3,
        "ENOIOCTLCMD": 4,
        "ERESTART_RESTARTBLOCK": 5,
        "E999": 6,
    }


def test_histogram_has_the_engines_buckets() -> None:
    histogram = CallCounts({1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 64: 32, 65: 64, -11: 128}).histogram()
    assert histogram == {"1": 1, "2": 2, "3-4": 12, "5-8": 16, "33-64": 32, "65-128": 64}
    assert [bucket_label(i) for i in (0, 1, 2, 10)] == ["1", "2", "3-4", "513-1024"]


def test_a_map_replaces_what_was_known_and_keeps_the_other_map() -> None:
    counts = parse(
        results_line(("sendmmsg", 1, 5)),
        json.dumps({"type": "map", "data": {"@wire": {"lo": 7}}}),
        results_line(("sendmmsg", 1, 6)),
    )
    assert counts.of("sendmmsg").calls == 6
    assert counts.wire_datagrams == {"lo": 7}


def test_what_is_no_map_is_text_or_nothing() -> None:
    nothing = TraceCounts()
    assert parse_line(json.dumps({"type": "printf", "data": "tick\n"}), nothing) == "tick"
    assert parse_line(json.dumps({"type": "attached_probes", "data": {"probes": 3}}), nothing) is None
    assert parse_line("\n", nothing) is None


@pytest.mark.parametrize("line", ["{", json.dumps({"type": "map", "data": {"@other": {}}})])
def test_what_the_program_cannot_have_printed_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_line(line, TraceCounts())


def test_interval_is_the_difference_of_two_totals() -> None:
    early = parse(results_line(("recvmmsg", 2, 10), ("recvmmsg", -errno.EAGAIN, 1)))
    late = parse(results_line(("recvmmsg", 2, 15), ("recvmmsg", 3, 1), ("recvmmsg", -errno.EAGAIN, 1)))
    interval = late.minus(early).of("recvmmsg")
    assert interval.results == {2: 5, 3: 1}


def test_calls_that_were_not_made_in_an_interval_are_left_out() -> None:
    counts = parse(results_line(("recvmmsg", 2, 10)))
    assert counts.minus(counts).by_name == {}


def test_derived_figures_of_a_lock_step_download() -> None:
    # 100 ACKs in 4 calls and one empty one, 100 DATA in 5 calls.
    derived = parse(
        results_line(("recvmmsg", 25, 4), ("recvmmsg", -errno.EAGAIN, 1), ("sendmmsg", 20, 5)),
        json.dumps({"type": "map", "data": {"@wire": {"lo": 100}}}),
    ).derived()
    assert derived.blocks == 100
    assert derived.receive_calls_per_block == pytest.approx(0.05)
    assert derived.send_calls_per_block == pytest.approx(0.05)
    assert derived.datagrams_per_receive_call == pytest.approx(20)
    assert derived.batch_efficiency == 1.0
    assert derived.empty_receive_share == pytest.approx(0.2)


def test_blocks_of_trains_are_counted_on_the_wire() -> None:
    # One message of 16 blocks for every ACK.
    derived = parse(
        results_line(("recvmmsg", 1, 10), ("sendmmsg", 1, 10)),
        json.dumps({"type": "map", "data": {"@wire": {"lo": 160}}}),
    ).derived()
    assert derived.blocks == 160
    assert derived.receive_calls_per_block == pytest.approx(1 / 16)


def test_blocks_that_pass_a_stack_of_devices_count_once() -> None:
    derived = parse(
        results_line(("recvmmsg", 1, 10), ("sendmmsg", 1, 10)),
        json.dumps({"type": "map", "data": {"@wire": {"eth0": 160, "eth0.5": 160, "bond0": 158}}}),
    ).derived()
    assert derived.blocks == 160


def test_reads_of_a_block() -> None:
    derived = parse(results_line(("sendto", 1, 10), ("pread64", 1, 10), ("read", 1, 5))).derived()
    assert derived.reads_per_block == pytest.approx(1.5)


def test_calls_that_found_nothing_are_divided_by_everywhere() -> None:
    counts = parse(results_line(("recvmmsg", 30, 2), ("recvmmsg", -errno.EAGAIN, 1)))
    assert counts.of("recvmmsg").per_call == counts.derived().datagrams_per_receive_call == 20
    assert CallCounts().per_call is None


def test_blocks_of_an_upload_are_the_datagrams_received() -> None:
    derived = parse(results_line(("recvmmsg", 16, 10), ("sendmmsg", 1, 10))).derived()
    assert derived.blocks == 160


def test_plain_calls_lower_the_batch_efficiency() -> None:
    derived = parse(results_line(("recvmmsg", 1, 3), ("recvfrom", 1, 1))).derived()
    assert derived.batch_efficiency == pytest.approx(0.75)


def test_nothing_counted_has_no_ratios() -> None:
    derived = TraceCounts().derived()
    assert derived.blocks == 0
    assert derived.batch_efficiency is None
    assert derived.receive_calls_per_block is None


def test_json_says_what_the_table_says() -> None:
    said = json.loads(json.dumps(parse(results_line(("recvmmsg", 2, 1))).to_json()))
    assert said["calls"]["recvmmsg"] == {
        "calls": 1,
        "moved": 1,
        "empty": 0,
        "datagrams": 2,
        "errors": {},
        "histogram": {"2": 1},
    }
    assert said["derived"]["blocks"] == 2


def test_program_counts_every_call_of_the_list_for_these_processes_only() -> None:
    program = build_script([41, 7], with_children=False, interval_ms=250)
    for call in CALLS:
        assert f"sys_exit_{call.name} /pid == 7 || pid == 41/" in program
    assert "interval:ms:250" in program
    assert "@tree" not in program
    assert READY in program
    assert TICK in program


def test_program_leaves_out_what_the_kernel_does_not_know() -> None:
    known = [call for call in CALLS if call.name != "epoll_pwait2"]
    program = build_script([7], with_children=False, interval_ms=250, calls=known)
    assert "sys_exit_epoll_pwait2" not in program
    # The numbers stay: they are what the counts are read by.
    assert f"@results[{NUMBER['pread64']}, " in program


def test_program_follows_children_when_asked() -> None:
    program = build_script([7], with_children=True, interval_ms=1000)
    assert "sched_process_fork /pid == 7 || @tree[pid]/" in program
