"""The table says what it counts, and shows the interval beside the total."""

from rich.console import Console

from snow_owl_tftp.observe.trace.counts import CallCounts, TraceCounts
from snow_owl_tftp.observe.trace.table import render


def shown(total: TraceCounts, interval: TraceCounts, interval_s: float) -> list[str]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render(total, interval, interval_s, title="PID 7"))
    return [line.strip() for line in capture.get().splitlines()]


TOTAL = TraceCounts({"recvmmsg": CallCounts({30: 2, -11: 1}), "sendmmsg": CallCounts({1: 10})}, {"lo": 160})
INTERVAL = TraceCounts({"recvmmsg": CallCounts({5: 1}), "sendmmsg": CallCounts({1: 1})}, {"lo": 16})


def test_interval_and_total_have_their_derived_figures() -> None:
    lines = shown(TOTAL, INTERVAL, 0.5)
    assert any(line.startswith("now: blocks 16 ") and "datagrams/receive call 5.00" in line for line in lines)
    assert any(line.startswith("all: blocks 160 ") and "datagrams/receive call 20.00" in line for line in lines)


def test_last_picture_has_no_interval() -> None:
    assert not any(line.startswith("now:") for line in shown(TOTAL, TraceCounts(), 0))


def test_trains_are_called_messages_and_a_call_is_divided_by_as_in_the_summary() -> None:
    lines = shown(TOTAL, TraceCounts(), 0)
    assert "messages per sendmmsg" in lines, "a train is one message"
    assert any("messages" in line and "per call" in line for line in lines)
    (row,) = (line for line in lines if "recvmmsg" in line and "EAGAIN 1" in line)
    assert "20.00" in row
