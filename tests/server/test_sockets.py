"""Binding: what is refused, what is worked around, what is warned of, and that nothing stays open."""

import errno
import os
import socket
from typing import Any

import pytest
from tests.support.descriptors import settled_descriptors

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError, EngineError
from snow_owl_tftp.linux.sockopts import SO_RCVBUFFORCE, SO_SNDBUFFORCE, enlarge
from snow_owl_tftp.server import sockets
from snow_owl_tftp.server.sockets import BoundAddress, open_addresses


class Warnings(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, **fields: Any) -> None:
        self.append((event, fields))


def open_with(**overrides: object) -> tuple[list[BoundAddress], Warnings]:
    warnings = Warnings()
    settings = override(Settings(), {"bind_addr": "127.0.0.1:0", **overrides})
    return open_addresses(settings, warnings), warnings


def close(addresses: list[BoundAddress]) -> None:
    for address in addresses:
        address.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_every_worker_has_a_listener_and_a_pool(workers: int) -> None:
    addresses, _ = open_with(workers=workers, tid_sockets=5)
    try:
        (address,) = addresses
        assert len(address.listeners) == workers
        assert [len(pool) for pool in address.tids] == [5] * workers
        assert {listener.getsockname() for listener in address.listeners} == {("127.0.0.1", address.port)}
        tid_ports = [tid.getsockname()[1] for pool in address.tids for tid in pool]
        assert len(set(tid_ports)) == 5 * workers
        assert all(not sock.getblocking() for sock in address.listeners)
    finally:
        close(addresses)


UDP_GRO = 104  # linux/udp.h


@pytest.mark.parametrize(("writes", "recvmmsg"), [(True, True), (True, False), (False, True)])
def test_trains_are_joined_for_uploads_that_recvmmsg_takes(writes: bool, recvmmsg: bool) -> None:
    batch = {"performance.platform.batch.enable_recvmmsg": recvmmsg}
    (address,), _ = open_with(**{"write_config.enabled": writes, **batch})
    try:
        joins = [tid.getsockopt(socket.IPPROTO_UDP, UDP_GRO) for pool in address.tids for tid in pool]
        assert set(joins) == {int(writes and recvmmsg)}
        assert address.joins_datagrams is (writes and recvmmsg)
    finally:
        close([address])


def test_single_port_has_no_tid_sockets() -> None:
    addresses, _ = open_with(single_port=True, workers=2)
    assert addresses[0].tids == [[], []]
    close(addresses)


@pytest.mark.parametrize("workers", [1, 2])
def test_port_of_another_server_is_never_shared(workers: int) -> None:
    first, _ = open_with(workers=workers)
    before = settled_descriptors()
    try:
        with pytest.raises(EngineError, match="another server has the port") as refused:
            open_with(workers=workers, bind_addr=first[0].text)
        assert refused.value.errno == errno.EADDRINUSE
        assert settled_descriptors() == before
    finally:
        close(first)


def test_second_address_that_fails_closes_the_first() -> None:
    before = settled_descriptors()
    with pytest.raises(EngineError, match=r"cannot listen on 203\.0\.113\.1:0: .*; no interface of this machine"):
        open_with(bind_addr=["127.0.0.1:0", "203.0.113.1:0"])
    assert settled_descriptors() == before


def test_unknown_zone_is_the_operators_error() -> None:
    with pytest.raises((ConfigError, EngineError), match="fe80::1%nowhere"):
        open_with(bind_addr="[fe80::1%nowhere]:0")


def test_range_without_a_free_port_is_the_operators_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"tid_ports: no free port for .* in {port}-{port}"):
            open_with(tid_ports=f"{port}-{port}")


def test_more_addresses_than_the_engine_has_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 64 addresses, got 65"):
        open_with(bind_addr=["127.0.0.1:0"] * 65)


def test_range_is_dealt_out_to_the_workers() -> None:
    settings = override(Settings(), {"tid_ports": "5000-5006", "workers": 3})
    shares = [list(sockets._tid_ports(settings, worker)) for worker in range(3)]
    assert shares == [[5000, 5003, 5006], [5001, 5004], [5002, 5005]]


@pytest.mark.parametrize("bind", ["[::]:0", ":0", "0"])
def test_machine_without_ipv6_listens_on_ipv4(bind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoIpv6(socket.socket):
        def __init__(self, family: int = -1, *args: Any, **kwargs: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *args, **kwargs)

    monkeypatch.setattr(socket, "socket", NoIpv6)
    addresses, warnings = open_with(bind_addr=bind)
    assert addresses[0].host == "0.0.0.0"
    assert addresses[0].is_wildcard
    assert "no IPv6" in warnings[0][0]
    close(addresses)
    with pytest.raises(EngineError, match=r"cannot listen on \[::1\]:0"):
        open_with(bind_addr="[::1]:0")


def test_small_buffers_are_warned_of_with_the_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without CAP_NET_ADMIN the sysctl caps what is asked; 1 GiB is above every sysctl.
    monkeypatch.setattr(sockets, "enlarge", without_privilege)
    addresses, warnings = open_with(**{"performance.platform.socket.recv_buffer_kb": 1 << 20})
    close(addresses)
    (warning,) = [fields for _, fields in warnings if "rmem_max" in fields["remedy"]]
    assert warning["remedy"] == f"sysctl -w net.core.rmem_max={2**30 - 1}"
    assert 0 < warning["granted_bytes"] < warning["asked_bytes"]


def without_privilege(sock: socket.socket, option: int, size_bytes: int) -> None:
    class Unprivileged:
        def setsockopt(self, level: int, option: int, value: int) -> None:
            if option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
                raise PermissionError(errno.EPERM, "Operation not permitted")
            sock.setsockopt(level, option, value)

    enlarge(Unprivileged(), option, size_bytes)  # type: ignore[arg-type]


def test_granted_buffers_are_not_warned_of() -> None:
    small = {"performance.platform.socket.recv_buffer_kb": 64, "performance.platform.socket.send_buffer_kb": 64}
    addresses, warnings = open_with(**small)
    close(addresses)
    assert warnings == []
