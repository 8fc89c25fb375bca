"""Flows: the engine repeats Python's decision by itself, only while the path leads to the same unchanged file."""

import contextlib
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine.conftest import Served
from tests.support.client import Client

from snow_owl_tftp.protocol.packets import build_error

CONTENT = bytes(i * 13 & 0xFF for i in range(3000))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    os.utime(path, (10**9, 10**9))
    return path


def get(served, **options):
    with Client(served.address) as client:
        return client.get("file", options=options).payload


@pytest.mark.parametrize("flows", [True, False])
@pytest.mark.parametrize("options", [{}, {"blksize": 1428, "tsize": 0}, {"windowsize": 4}])
def test_the_same_bytes_with_and_without_flows(serve, file, flows, options):
    served = serve(flows=flows)
    for _ in range(10):
        assert get(served, **options) == CONTENT
    served.completion(total=10)
    assert served.requests == (1 if flows else 10)
    assert served.counter("flow_hits") == (9 if flows else 0)
    assert sum(c.flow_hit for c in served.completions) == (9 if flows else 0)


def test_a_flow_belongs_to_the_exact_bytes_of_a_request(serve, file):
    served = serve(flows=True)
    assert get(served, blksize=1428) == get(served, blksize=1427) == get(served) == CONTENT
    assert served.requests == 3


def replace_by_rename(file):
    new = file.with_name("new")
    new.write_bytes(b"renamed")
    new.rename(file)
    return b"renamed"


def rewrite(file):
    file.write_bytes(b"rewritten")
    return b"rewritten"


def touch(file):
    os.utime(file, (2 * 10**9, 2 * 10**9))
    return CONTENT


def chmod(file):
    file.chmod(0o640)
    return CONTENT


def grow(file):
    with file.open("ab") as opened:
        opened.write(b"+")
    return CONTENT + b"+"


@pytest.mark.parametrize("change", [replace_by_rename, rewrite, touch, chmod, grow])
def test_any_change_of_the_file_asks_python_again(serve, file, change):
    served = serve(flows=True)
    get(served)
    get(served)
    assert served.requests == 1
    expected = change(file)
    assert get(served) == expected
    assert served.requests == 2
    assert get(served) == expected
    assert served.requests == 2, "and a new flow begins"


def test_forget_flows_asks_python_again(serve, file):
    served = serve(flows=True)
    get(served)
    served.engine.forget_flows()
    get(served)
    assert served.requests == 2


def test_a_file_that_went_away_is_not_served_from_a_flow(serve, file):
    served = serve(flows=True)
    get(served)
    file.unlink()
    with Client(served.address) as client:
        client.request("file")
        packet, _ = client.receive_packet()
    assert packet.code == 1


def test_more_requests_than_flows_still_get_the_right_file(serve, tmp_path, rng):
    served = serve(flows=True, max_flows=4)
    names = [f"file{i}" for i in range(12)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode() * 10)
    with Client(served.address) as client:
        for _ in range(100):
            name = rng.choice(names)
            assert client.get(name).payload == name.encode() * 10
    served.completion(total=100)


def test_each_batch_of_requests_is_checked_against_the_file(serve, file):
    """Not each turn: a turn takes up to eight batches, and the file may be replaced in the middle of it."""
    served = serve(flows=True, max_batch=1, linger_us=5000, adaptive=False)
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(Client(served.address)) for _ in range(9)]
        clients[0].request("file", options={"blksize": 1000})
        clients[0].receive()
        checked = served.counter("file_checks")
        for client in clients[1:]:
            client.request("file", options={"blksize": 1000})
        for client in clients:
            peer = client.receive()[1] if client is not clients[0] else client.last_sender
            client.send(build_error(0, "enough"), peer)
        served.completion(total=9)
    assert served.counter("flow_hits") == 8
    assert served.counter("file_checks") - checked == 8


def test_a_decision_that_makes_no_flow_pushes_none_out(serve, file):
    served = serve(flows=True, max_flows=1)

    def from_elsewhere(event, request):
        return served.send_plan(event, replace(request, filename="file"))

    get(served)
    served.on_request = from_elsewhere
    with Client(served.address) as client:
        assert client.get("missing").payload == CONTENT  # its path leads to no file: no flow
    assert get(served) == CONTENT
    assert served.requests == 2


def test_a_file_on_another_mount_makes_no_flow(serve):
    """Whether a look at it waits for a disk or a server is known of the root's own mount alone."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path("/").stat().st_dev:
        pytest.skip("no second file system at hand")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        path = Path(folder) / "file"
        path.write_bytes(CONTENT)
        served = serve(Path("/"), flows=True)
        for _ in range(2):
            with Client(served.address) as client:
                assert client.get(str(path)[1:]).payload == CONTENT
        assert served.requests == 2


def test_turning_flows_off_takes_effect_at_once(serve, file):
    served = serve(flows=True)
    get(served)
    served.engine.set_tuning(flows=False)
    get(served)
    assert served.requests == 2


def test_stopping_without_draining_lets_every_flow_go(tmp_path, file):
    served = Served(tmp_path, flows=True)
    served.drains = False
    get(served)
    served.stop()
    served.check_accounts()


@pytest.mark.parametrize("flows", [True, False])
def test_a_plan_is_over_once(serve, file, flows):
    """By its last Completion, or by the end of its flow where that comes later."""
    served = serve(flows=flows)
    for _ in range(5):
        get(served)
    served.completion(total=5)
    assert [c.is_last for c in served.completions] == [not flows] * 5
    assert served.retired == []
    if flows:
        served.engine.forget_flows()
        served.wait(lambda: served.retired, "Retired")
        assert served.retired[0].context is served.completions[0].context
    get(served)
    assert served.completion(total=6).is_last == (not flows)
    assert len(served.retired) == (1 if flows else 0)


def test_a_flow_that_is_forgotten_under_a_transfer_leaves_the_end_to_it(serve, file):
    served = serve(flows=True)
    with Client(served.address) as client:
        client.request("file")
        _, sender = client.receive()
        served.engine.forget_flows()
        get(served, blksize=1428)  # behind the message that forgets
        client.send(build_error(0, "enough"), sender)
        served.completion(total=2)
    assert [c.is_last for c in served.completions if c.blocks == 0] == [True]
    assert served.retired == []


@pytest.mark.parametrize("forget", ["forget_flows", "set_classes"])
def test_who_asks_after_a_flow_is_to_be_forgotten_is_decided_about_in_the_same_turn_too(serve, file, forget):
    """A worker that gathers requests hears of it in its next turn only."""
    served = serve(flows=True, linger_us=10_000)
    asked_afterwards = set()
    for number in range(12):
        assert get(served) == get(served) == CONTENT
        with Client(served.address) as first, Client(served.address) as second:
            first.request("file")
            time.sleep(0.003)  # now it gathers, most probably
            getattr(served.engine, forget)(*([None] if forget == "set_classes" else []))
            assert second.get("file").payload == CONTENT
            asked_afterwards.add(second.port)
            first.send(build_error(0, "enough"), first.receive()[1])
        served.completion(total=4 * number + 4)
    assert served.counter("flow_hits") > 0
    of_them = [completion for completion in served.completions if completion.peer[1] in asked_afterwards]
    assert len(of_them) >= 12
    assert not any(completion.flow_hit for completion in of_them)
