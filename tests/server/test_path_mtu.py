"""Paths that carry less than the two ends know: what is too large is fragmented on its way, and arrives."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack

import pytest
from tests.support.client import Client
from tests.support.namespaces import narrow_path
from tests.support.server import serve_command, serve_in_thread

from snow_owl_tftp import Response, Server
from snow_owl_tftp.linux.routes import route_mtu_bytes
from snow_owl_tftp.protocol.packets import build_error

CONTENT = os.urandom(300_000)
UPLOADS = "[write_config]\nenabled = true\nallowed_patterns = ['**']\n"
DONT_FRAGMENT = 0x40  # RFC 791 section 3.1, in the first byte of the fragment offset
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
BPF_LDH_ABS, BPF_JEQ, BPF_RET = 0x28, 0x15, 0x06  # linux/bpf_common.h


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    (tmp_path / "uploads.toml").write_text(UPLOADS)
    return root


def run_client(*arguments):
    command = [sys.executable, "-m", "snow_owl_tftp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def transfer_both_ways(hosts, root, host):
    """A read with windows, a read in lock-step and an upload, between the ends of the path."""
    near, far = hosts[0], hosts[3]
    out = root.parent / "out"
    with ExitStack() as stack:
        start = serve_command(root, "--config", str(root.parent / "uploads.toml"), binds=(f"{host}:0",))
        server = near.run(stack.enter_context, start)
        url = f"tftp://{host}:{server.address[1]}"
        for windowsize in (1, 16):
            got = far.run(run_client, "get", "--blksize", 1428, "--windowsize", windowsize, "-o", out, f"{url}/file")
            assert got.returncode == 0, got.stderr
            assert out.read_bytes() == CONTENT
            put = far.run(
                run_client, "put", "--blksize", 1428, "--windowsize", windowsize, out, f"{url}/up{windowsize}"
            )
            assert put.returncode == 0, put.stderr
            assert (root / f"up{windowsize}").read_bytes() == CONTENT


@pytest.mark.parametrize("is_black_hole", [False, True])
def test_blocks_larger_than_a_link_of_the_path_arrive(root, is_black_hole):
    with narrow_path(600) as hosts:
        if is_black_hole:
            for router in hosts[1:3]:
                router.say_nothing()
        transfer_both_ways(hosts, root, "10.9.0.1")


def test_blocks_larger_than_a_link_of_the_path_arrive_by_ipv6(root):
    with narrow_path(1280) as hosts:
        transfer_both_ways(hosts, root, "[fd09::1]")


class Sniffer:
    """Hears every UDP datagram of this machine that goes to one port; others may be sending what they like."""

    def __init__(self, to_port):
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        try:
            self.socket = socket.socket(socket.AF_INET, kind, socket.IPPROTO_UDP)
        except PermissionError:
            pytest.skip("IP headers are shown to root only: the DON'T FRAGMENT bit is NOT tested")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._hear_only(to_port)

    def _hear_only(self, to_port):
        """linux/filter.h: load the 16 bits at 22, behind an IP header of 20 bytes; keep all of it, or nothing."""
        steps = ((BPF_LDH_ABS, 0, 0, 22), (BPF_JEQ, 0, 1, to_port), (BPF_RET, 0, 0, 1 << 18), (BPF_RET, 0, 0, 0))
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
        described = struct.pack("@HP", len(steps), ctypes.addressof(program))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)

    def dont_fragment_bits(self):
        """The bit of each datagram so far."""
        bits = []
        while True:
            try:
                packet = self.socket.recv(70_000)
            except BlockingIOError:
                return bits
            bits.append(bool(packet[6] & DONT_FRAGMENT))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@pytest.mark.parametrize("bind_addr", ["127.0.0.1:0", "[::]:0"])
@pytest.mark.parametrize("is_single_port", [False, True])
@pytest.mark.parametrize("options", [{}, {"blksize": 1428, "windowsize": 32}])
def test_no_datagram_of_the_server_has_the_dont_fragment_bit(root, bind_addr, is_single_port, options):
    settings = {"single_port": is_single_port, "bind_addr": bind_addr}
    with (
        serve_in_thread(root, settings) as server,
        Client(("127.0.0.1", server.address[1])) as client,
        Sniffer(client.port) as sniffer,
    ):
        assert client.get("file", options=options).payload == CONTENT
        bits = sniffer.dont_fragment_bits()
        trains = server.counters()["gso_trains"]
    assert len(bits) > 3
    assert not any(bits)
    assert (trains > 0) == bool(options)


def test_no_request_of_the_client_has_the_dont_fragment_bit(root):
    with serve_in_thread(root) as server, Sniffer(server.address[1]) as sniffer:
        got = run_client("get", "-o", root.parent / "out", f"tftp://127.0.0.1:{server.address[1]}/file")
        assert got.returncode == 0, got.stderr
        assert set(sniffer.dont_fragment_bits()) == {False}  # more than one where a busy machine was asked again


def granted_window(address, blksize, windowsize):
    with Client(address) as client:
        client.request("file", options={"blksize": blksize, "windowsize": windowsize})
        packet, tid = client.receive_packet()
        client.send(build_error(8, "just asking"), tid)
    return int(dict(packet.options)["windowsize"])


def test_fewer_blocks_are_granted_where_each_is_larger_than_the_mtu_of_the_way(root):
    """On the same server a client beside it, which is reached without fragments, gets what it asks for."""
    with narrow_path(1500) as hosts, ExitStack() as stack:
        start = serve_command(root, binds=("10.9.0.1:0",))
        address = hosts[0].run(stack.enter_context, start).address
        for host, expected in ((hosts[3], 11), (hosts[0], 32), (hosts[3], 11)):
            assert host.run(granted_window, address, 8192, 32) == expected
            assert host.run(granted_window, address, 1428, 64) == 64
            assert host.run(granted_window, address, 65464, 4) == 1


def test_a_handler_grants_what_a_file_server_does(root):
    with Server(read=lambda request: Response(request.under(root)), bind="127.0.0.1:0") as server:
        assert granted_window(server.address, 65464, 4) == 1
        assert granted_window(server.address, 8192, 32) == 32


@pytest.mark.parametrize(
    ("host", "mtu_bytes"), [("127.0.0.1", 9000), ("::1", 9000), ("::ffff:127.0.0.1", 9000), ("no address", 1500)]
)
def test_the_mtu_of_a_route(host, mtu_bytes):
    assert route_mtu_bytes(host) == mtu_bytes
