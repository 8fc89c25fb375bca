"""Where a server listens and from where it answers: IPv4, IPv6, both, all addresses, one port, a range of ports."""

import socket
from collections import Counter
from pathlib import Path

import pytest
from tests.support.boot import BOOT
from tests.support.client import Client
from tests.support.ipv6 import needs_ipv6
from tests.support.server import serve_in_thread, wait_for

from snow_owl_tftp.protocol.packets import Data, Error, build_error


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody uses now."""
    for first in range(50_000, 60_000, count):
        sockets = []
        try:
            for port in range(first, first + count):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sockets.append(sock)
                sock.bind(("0.0.0.0", port))
        except OSError:
            continue
        finally:
            for sock in sockets:
                sock.close()
        return first
    raise AssertionError("no free ports in a row")


@needs_ipv6
def test_ipv6_address_is_served(root: Path) -> None:
    with serve_in_thread(root, {"bind_addr": "[::1]:0"}) as server, Client(server.address) as client:
        got = client.get("boot.img", options={"blksize": 1428, "windowsize": 8})
        assert (got.payload, got.peer[0]) == (BOOT, "::1")


@needs_ipv6
@pytest.mark.parametrize("asked", ["::1", "127.0.0.1", "127.0.0.3"])
@pytest.mark.parametrize("single_port", [False, True])
def test_dual_stack_answers_both_families_from_the_address_asked(root: Path, asked: str, single_port: bool) -> None:
    with serve_in_thread(root, {"bind_addr": "[::]:0", "single_port": single_port}) as server:
        port = server.server.addresses[0][1]
        with Client((asked, port)) as client:
            got = client.get("boot.img", options={"blksize": 1428, "windowsize": 8})
            assert (got.payload, got.peer[0]) == (BOOT, asked)
            assert (got.peer[1] == port) == single_port


@pytest.mark.parametrize("asked", ["127.0.0.1", "127.0.0.2", "127.9.9.9"])
@pytest.mark.parametrize("single_port", [False, True])
def test_wildcard_answers_from_the_address_asked(root: Path, asked: str, single_port: bool) -> None:
    with serve_in_thread(root, {"bind_addr": "0.0.0.0:0", "single_port": single_port}) as server:
        port = server.server.addresses[0][1]
        with Client((asked, port)) as client:
            got = client.get("boot.img", options={"blksize": 1428, "windowsize": 8})
            assert (got.payload, got.peer[0]) == (BOOT, asked)
            answer, sender = client.exchange(b"\0\1no such file\0octet\0")
            assert isinstance(answer, Error)
            assert sender[0] == asked


@needs_ipv6
@pytest.mark.parametrize("bind", [":{port}", "{port}"])
def test_port_alone_is_every_address_of_both_families(root: Path, bind: str) -> None:
    text = bind.format(port=free_ports(1))
    with serve_in_thread(root, {"bind_addr": text}) as server:
        for host in ("127.0.0.1", "127.0.0.9", "::1"):
            with Client((host, server.address[1])) as client:
                got = client.get("boot.img", options={"blksize": 1428})
                assert (got.payload, got.peer[0]) == (BOOT, host)


@needs_ipv6
def test_both_wildcards_may_be_bound_to_one_port(root: Path) -> None:
    port = free_ports(1)
    with serve_in_thread(root, {"bind_addr": [f"0.0.0.0:{port}", f"[::]:{port}"]}):
        for host in ("127.0.0.1", "::1"):
            with Client((host, port)) as client:
                assert client.get("boot.img").payload == BOOT


def test_several_addresses_are_served_together(root: Path) -> None:
    with serve_in_thread(root, {"bind_addr": ["127.0.0.1:0", "127.0.0.2:0"]}) as server:
        assert [host for host, _ in server.server.addresses] == ["127.0.0.1", "127.0.0.2"]
        for address in server.server.addresses:
            with Client(address) as client:
                got = client.get("boot.img")
                assert (got.payload, got.peer[0]) == (BOOT, address[0])


def test_single_port_serves_everything_from_the_request_port(root: Path) -> None:
    with serve_in_thread(root, {"single_port": True}) as server:
        for options in ({}, {"blksize": 1428, "windowsize": 16, "tsize": 0}):
            with Client(server.address) as client:
                for _ in range(3):  # from one source port, as boot ROMs do
                    got = client.get("boot.img", options=options)
                    assert (got.payload, got.peer) == (BOOT, server.address)


def test_tid_ports_are_kept_to(root: Path) -> None:
    first = free_ports(6)
    settings = {"tid_ports": f"{first}-{first + 5}", "workers": 2}
    with serve_in_thread(root, settings) as server:
        used = Counter()
        for _ in range(30):
            with Client(server.address) as client:
                used[client.get("small").peer[1]] += 1
                used[client.get("small").peer[1]] += 1
    assert set(used) <= set(range(first, first + 6))
    assert len(used) > 1


def test_taken_tid_port_is_left_out(root: Path) -> None:
    first = free_ports(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", first + 1))
        with serve_in_thread(root, {"tid_ports": f"{first}-{first + 2}"}) as server, Client(server.address) as client:
            assert {client.get("small").peer[1] for _ in range(6)} == {first, first + 2}


def test_workers_share_one_port(root: Path) -> None:
    with serve_in_thread(root, {"workers": 3}) as server:
        for _ in range(40):
            with Client(server.address) as client:
                assert client.get("small").payload == b"ten bytes."
        engine = server.engine
        busy = [engine.counters(worker)["requests"] for worker in range(3)]
    # The kernel hashes by source port: 40 of them leave a worker idle with a chance of 3 × (2/3)^40.
    assert all(busy), busy
    assert sum(busy) == 40


def test_two_servers_in_one_process_do_not_meet(tmp_path: Path, root: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "small").write_bytes(b"other")
    with (
        serve_in_thread(root, log_path=tmp_path / "1") as one,
        serve_in_thread(other, log_path=tmp_path / "2") as two,
        Client(one.address) as client_one,
        Client(two.address) as client_two,
    ):
        assert client_one.get("small").payload == b"ten bytes."
        assert client_two.get("small").payload == b"other"
        answer, sender = client_two.exchange(b"\0\1boot.img\0octet\0")
        assert isinstance(answer, Error)
        answer, sender = client_one.exchange(b"\0\1boot.img\0octet\0")
        assert isinstance(answer, Data)
        client_one.send(build_error(0), sender)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "0.0.0.0:0", pytest.param("[::]:0", marks=needs_ipv6)])
@pytest.mark.parametrize("is_single_port", [False, True])
def test_a_client_that_has_closed_its_port_is_heard_of_on_every_kind_of_socket(root, tmp_path, bind, is_single_port):
    settings = {"bind_addr": bind, "single_port": is_single_port, "retransmit.initial_ms": 50}
    with serve_in_thread(root, settings, log_path=tmp_path / "log") as server:
        with Client(("127.0.0.1", server.address[1])) as client:
            client.request("boot.img")
            client.receive()
        wait_for(lambda: "outcome=UNREACHABLE" in server.log, "the end of its transfer")
        assert server.counters()["error_queue_calls"] >= server.counters()["errors_heard"] >= 1
