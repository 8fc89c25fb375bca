"""What is said about a silent server where nothing can be drawn."""

import pytest

from snow_owl_tftp.cli.bars import Bars


@pytest.fixture
def clock():
    """Seconds; a test moves them."""
    return [100.0]


@pytest.fixture
def bars(clock):
    with Bars(False, 3, lambda: clock[0]) as bars:
        yield bars


def said(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_silence_is_told_once_after_seconds(bars, clock, capsys):
    bar = bars.add("tftp://10.0.0.1/a/file")
    for asked, silent_s in ((1, 0), (2, 1), (2, 5.9)):
        clock[0] = 100 + silent_s
        bar.unanswered("10.0.0.1:69", asked)
    assert said(capsys) == []
    clock[0] = 106
    for asked in (3, 3, 4):
        bar.unanswered("10.0.0.1:69", asked)
    assert said(capsys) == ["snow-owl-tftp: tftp://10.0.0.1/a/file: no answer from 10.0.0.1:69 yet, asked 3 times"]


def test_server_that_answers_in_time_is_not_told_of(bars, clock, capsys):
    bar = bars.add("tftp://10.0.0.1/file")
    bar.unanswered("10.0.0.1:69", 2)
    bar(0, None)
    clock[0] += 60
    bar(512, 1024)
    bar.unanswered("10.0.0.1:69", 3)
    bar.end()
    assert said(capsys) == []


def test_one_line_stands_for_all_transfers_of_a_server(bars, clock, capsys):
    told = [(bars.add(f"tftp://10.0.0.{i}/file"), f"10.0.0.{i}:69") for i in (1, 1, 2)]
    for bar, server in told:
        bar.unanswered(server, 2)
    clock[0] += 5
    for bar, server in told:
        bar.unanswered(server, 3)
    assert [line.split()[1] for line in said(capsys)] == ["tftp://10.0.0.1/file:", "tftp://10.0.0.2/file:"]
