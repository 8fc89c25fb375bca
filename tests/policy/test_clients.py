"""Prefixes: an address is held by what brute force says."""

import ipaddress
import random

import pytest

from snow_owl_tftp.config.rules import Network
from snow_owl_tftp.policy.clients import PrefixTable, number_of


def some_networks(rng: random.Random, count: int) -> set[Network]:
    found: set[Network] = set()
    for _ in range(count):
        if rng.random() < 0.5:
            length = rng.choice([0, 1, 8, 12, 24, 31, 32])
            found.add(ipaddress.ip_network((rng.choice([0, 10 << 24, 2**32 - 1]) ^ rng.getrandbits(3), length), False))
        else:
            length = rng.choice([0, 8, 64, 127, 128])
            found.add(ipaddress.ip_network((0xFD << 120 | rng.getrandbits(2), length), False))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_address_is_held_by_the_prefixes_that_hold_it_the_longest_first(seed: int) -> None:
    rng = random.Random(seed)
    networks = some_networks(rng, 12)
    table = PrefixTable((network, network) for network in networks)
    ends = [end for one in networks for end in (one.network_address, one.broadcast_address)]
    hosts = {str(end + step) for end in ends for step in (-1, 0, 1) if 0 <= int(end) + step < 2**end.max_prefixlen}
    assert hosts or not networks
    for host in hosts:
        address = ipaddress.ip_address(host)
        expected = [one for one in networks if one.version == address.version and address in one]
        assert list(table.holding(host)) == sorted(expected, key=lambda one: -one.prefixlen), host


def test_ipv4_by_an_ipv6_socket_is_ipv4_and_a_zone_is_no_part_of_an_address() -> None:
    assert number_of("::ffff:10.0.0.1") == number_of("10.0.0.1") == (4, 10 << 24 | 1)
    assert number_of("fe80::1%eth0") == number_of("fe80::1")
    assert number_of("::10.0.0.1")[0] == 6
    table = PrefixTable([(ipaddress.ip_network("10.0.0.0/8"), "ten")])
    assert table.holding("::ffff:10.1.2.3") == ("ten",)


@pytest.mark.parametrize("host", ["", "host", "10.0.0", "1.2.3.4.5", "fe80::zz"])
def test_what_is_no_address_is_held_by_none(host: str) -> None:
    assert PrefixTable([(ipaddress.ip_network("0.0.0.0/0"), 1), (ipaddress.ip_network("::/0"), 2)]).holding(host) == ()
