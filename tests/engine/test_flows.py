"""Flows: the engine repeats Python's decision by itself, only while the path leads to the same unchanged file."""

import os

import pytest
from tests.engine.conftest import Served
from tests.support.client import Client

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
