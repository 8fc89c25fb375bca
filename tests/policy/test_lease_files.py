"""How dnsmasq, Kea and ISC dhcpd write their leases down, in pieces of any size."""

import random
import time

import pytest

from snow_owl_tftp.policy.machines.dhcp import LeaseReader, reader_of
from snow_owl_tftp.policy.machines.dhcp.lines import MAX_WAITING_BYTES, mac_of_duid
from snow_owl_tftp.policy.machines.leases import Lease

FOREVER = float("inf")
MAC = "52:54:00:12:34:56"

DNSMASQ = b"""\
1795716000 52:54:00:12:34:56 10.0.0.5 lathe 01:52:54:00:12:34:56
0 52:54:00:12:34:57 10.0.0.6 * *
3600 52:54:00:12:34:58 10.0.0.7 mill *
1795716000 06-a0:00:02:20:fe:80:00:00 10.0.0.8 * *
duid 00:01:00:01:2e:0c:1b:2a:52:54:00:aa:aa:aa
1795716000 305419896 fd00::5 lathe 00:03:00:01:52:54:00:12:34:56
1795716000 T305419897 fd00::6 lathe 00:01:00:01:2e:0c:1b:2a:52:54:00:12:34:57
1795716000 305419898 fd00::7 * 00:02:00:00:ab:11:01:02:03
"""
DNSMASQ_LEASES = [
    Lease("10.0.0.5", MAC, 1795716000),
    Lease("10.0.0.6", "52:54:00:12:34:57", FOREVER),
    Lease("10.0.0.7", "52:54:00:12:34:58", FOREVER),  # a length: that dnsmasq has no clock
    Lease("fd00::5", MAC, 1795716000),
    Lease("fd00::6", "52:54:00:12:34:57", 1795716000),
]

KEA4 = b"""\
address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
10.0.0.5,52:54:00:12:34:56,01:52:54:00:12:34:56,3600,1795716000,1,0,0,lathe,0,{ "a": 1&#x2c "b": 2 },0
10.0.0.6,52:54:00:12:34:57,,4294967295,0,1,0,0,,0,,0
10.0.0.7,,,3600,1795716000,1,0,0,,1,,0
10.0.0.5,52:54:00:12:34:56,,0,1795716000,1,0,0,lathe,0,,0
10.0.0.8,52:54:00:12:34:58,,3600,1795716000,1
"""
KEA4_LEASES = [
    Lease("10.0.0.5", MAC, 1795716000),
    Lease("10.0.0.6", "52:54:00:12:34:57", FOREVER),
    Lease("10.0.0.7", None, 0),
    Lease("10.0.0.5", None, 0),
    Lease("10.0.0.8", "52:54:00:12:34:58", 1795716000),
]

KEA6 = b"""\
address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,\
hwaddr,state,user_context,hwtype,hwaddr_source,pool_id
fd00::5,00:03:00:01:52:54:00:12:34:57,4000,1795716000,1,3000,0,7,128,0,0,,52:54:00:12:34:56,0,,1,2,0
fd00::6,00:03:00:01:52:54:00:12:34:57,4000,1795716000,1,3000,0,7,128,0,0,,,0,,1,2,0
fd00:1::,00:03:00:01:52:54:00:12:34:57,4000,1795716000,1,3000,2,7,64,0,0,,,0,,1,2,0
"""
KEA6_LEASES = [Lease("fd00::5", MAC, 1795716000), Lease("fd00::6", "52:54:00:12:34:57", 1795716000)]

DHCPD = b"""\
# The format of this file is documented in the dhcpd.leases(5) manual page.
# This lease file was written by isc-dhcp-4.4.3-P1

# authoring-byte-order entry is generated, DO NOT DELETE
authoring-byte-order little-endian;

failover peer "dhcp" state {
  my state normal at 4 2026/11/26 06:00:00;
}

lease 10.0.0.5 {
  starts 4 2026/11/26 06:00:00;
  ends 4 2026/11/26 18:00:00;
  tstp 4 2026/11/26 18:00:00;
  cltt 4 2026/11/26 06:00:00;
  binding state active;
  next binding state free;
  rewind binding state free;
  hardware ethernet 52:54:00:12:34:56;
  uid "\\001RT\\000\\0224V }\\n{";
  set vendor-class-identifier = "PXEClient:Arch:00000:UNDI:002001";
  client-hostname "lathe";
  on expiry {
    execute ("true", "}");
  }
}
lease 10.0.0.6 {
  starts epoch 1795672800; # Thu Nov 26 06:00:00 2026
  ends epoch 1795716000; # Thu Nov 26 18:00:00 2026
  binding state active;
  hardware ethernet 52:54:00:12:34:57;
}
lease 10.0.0.7 {
  starts 4 2026/11/26 06:00:00;
  ends never;
  binding state active;
  hardware ethernet 52:54:00:12:34:58;
}
lease 10.0.0.5 {
  starts 4 2026/11/26 06:00:00;
  ends 4 2026/11/26 07:00:00;
  binding state free;
  hardware ethernet 52:54:00:12:34:56;
}
server-duid "\\000\\001\\000\\001";
lease 10.0.0.9 {
  ends 4 2026/13/26 07:00:00;
}
"""
DHCPD_LEASES = [
    Lease("10.0.0.5", MAC, 1795716000),
    Lease("10.0.0.6", "52:54:00:12:34:57", 1795716000),
    Lease("10.0.0.7", "52:54:00:12:34:58", FOREVER),
    Lease("10.0.0.5", None, 1795676400),
]
FILES = {
    "dnsmasq": (DNSMASQ, DNSMASQ_LEASES, 2),
    "Kea": (KEA4, KEA4_LEASES, 0),
    "Kea 6": (KEA6, KEA6_LEASES, 1),
    "dhcpd": (DHCPD, DHCPD_LEASES, 1),
}


def reader(beginning: bytes) -> LeaseReader:
    found = reader_of(beginning)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", FILES)
def test_leases_are_read_and_what_is_none_is_counted(kind: str) -> None:
    data, leases, skipped = FILES[kind]
    one = reader(data)
    assert one.server == kind.removesuffix(" 6")
    assert one.feed(data) == leases
    assert one.skipped_total == skipped


@pytest.mark.parametrize("kind", FILES)
def test_record_that_is_cut_waits_for_its_rest(kind: str, rng: random.Random) -> None:
    data, leases, _ = FILES[kind]
    for size in (1, 2, 7, rng.randrange(8, 200)):
        one = reader(data)
        found = [lease for at in range(0, len(data), size) for lease in one.feed(data[at : at + size])]
        assert found == leases, size
    for end in range(len(data)):
        assert reader(data).feed(data[:end]) == leases[: len(reader(data).feed(data[:end]))], end


@pytest.mark.parametrize("beginning", [b"", b"address,hw", b"\n\n", b"17957"])
def test_file_whose_first_line_is_not_there_yet_is_nobodys(beginning: bytes) -> None:
    assert reader_of(beginning) is None


@pytest.mark.parametrize("beginning", [b"root:x:0:0\n", b"\x7fELF\n", b"[machines]\n", b"<lease>\n", b"-1 a b c\n"])
def test_file_of_no_dhcp_server_is_refused(beginning: bytes) -> None:
    with pytest.raises(ValueError, match="no lease file of dnsmasq, Kea or ISC dhcpd"):
        reader_of(beginning)


@pytest.mark.parametrize(
    "line",
    [
        b"1795716000 52:54:00:12:34:56 10.0.0.5",
        b"1795716000 52:54:00:12:34:56 lathe lathe *",
        b"1795716000 ff:ff:ff:ff:ff:ff 10.0.0.5 * *",
        b"soon 52:54:00:12:34:56 10.0.0.5 * *",
        b"\xff\xfe\x00",
        b"1795716000 5 fd00::5 *",
        b"\xb2 52:54:00:12:34:56 10.0.0.5 * *",
        b"9" * 5000 + b" 52:54:00:12:34:56 10.0.0.5 * *",
        b"1795716000 .. ../../etc ../.. ..",
    ],
)
def test_line_that_is_no_lease_costs_no_other(line: bytes) -> None:
    one = reader(DNSMASQ)
    assert one.feed(line + b"\n" + DNSMASQ.splitlines(keepends=True)[0]) == DNSMASQ_LEASES[:1]
    assert one.skipped_total == 1


@pytest.mark.parametrize(
    "row",
    [b"10.0.0.5", b"10.0.0.5,,,x,1", b"lathe,,,1,1,1", b"10.0.0.5,,,1,1795716000,1,0,0,,0", b",,,,,,,,,,,,,,,,,,,,,"],
)
def test_row_that_says_nothing_gives_nobody_an_address(row: bytes) -> None:
    one = reader(KEA4)
    one.feed(KEA4)
    assert all(lease.mac is None for lease in one.feed(row + b"\n"))


@pytest.mark.parametrize("number", [b"\xb2", b"9" * 5000, b"-1", b" 1", b"1_0"])
def test_what_is_no_number_costs_no_other_row(number: bytes) -> None:
    one = reader(KEA4)
    assert one.feed(KEA4) == KEA4_LEASES
    skipped = one.skipped_total
    rows = [b"10.0.0.9,52:54:00:12:34:59,,%b,%b,1,0,0,,0\n" % pair for pair in ((number, b"1"), (b"1", number))]
    assert one.feed(b"".join(rows)) == []
    assert one.skipped_total == skipped + 2
    assert one.feed(KEA4) == KEA4_LEASES


HOSTILE_BLOCKS = [
    b"lease 10.0.0.5 {\n" * 100_000,
    b"lease 10.0.0.5 {\n" + b"\n" * 1_000_000 + b"}\n",
    b"lease 10.0.0.5 {\n" + b"\t" * 1_000_000 + b"\n}\n",
    b"lease " * 200_000,
    b"lease " + b"1" * 1_000_000 + b" {\n}\n",
    b"lease 10.0.0.5 {\n" + b"  binding state \n  ends \n" * 50_000 + b"}\n",
]


@pytest.mark.parametrize("blocks", HOSTILE_BLOCKS, ids=range(len(HOSTILE_BLOCKS)))
def test_file_made_to_be_slow_is_read_in_time_that_grows_with_its_length(blocks: bytes) -> None:
    """Its reader holds the GIL: a second of it is a second in which nobody is served."""
    one = reader(DHCPD)
    began_s = time.thread_time()
    for at in range(0, len(blocks), 65_536):
        one.feed(blocks[at : at + 65_536])
    assert time.thread_time() - began_s < 3
    one.feed(b"\n}\n" + b"x" * MAX_WAITING_BYTES + b"\n")
    assert one.feed(DHCPD)[-len(DHCPD_LEASES) :] == DHCPD_LEASES


def test_block_that_was_never_finished_takes_nothing_from_the_next() -> None:
    one = reader(DHCPD)
    torn = b"lease 10.0.0.99 {\n  starts 4 2026/11/26 06:00:00;\n"
    assert one.feed(torn + DHCPD) == DHCPD_LEASES


def test_comma_in_a_host_name_gives_nobody_another_mac() -> None:
    one = reader(KEA6)
    one.feed(KEA6)
    row = b"fd00::9,00:03:00:01:52:54:00:12:34:57,4000,1795716000,1,3000,0,7,128,0,0,%b,52:54:00:12:34:57,0,,1,2,0\n"
    assert [lease.mac for lease in one.feed(row % b"mill")] == ["52:54:00:12:34:57"]
    assert one.feed(row % b"x,52:54:00:12:34:56,0") == []


def test_rows_without_a_header_are_nothing() -> None:
    one = reader(KEA4)
    assert one.feed(KEA4.split(b"\n", 1)[1]) == []
    assert one.feed(b"address,hwaddr\n10.0.0.5,52:54:00:12:34:56\n") == [], "columns are missing"


@pytest.mark.parametrize("kind", ["dnsmasq", "Kea", "dhcpd"])
def test_record_without_end_is_dropped_and_those_behind_it_are_read(kind: str) -> None:
    data, leases, _ = FILES[kind]
    one = reader(data)
    assert one.feed(data) == leases
    for _ in range(40):
        assert one.feed(b"x" * (MAX_WAITING_BYTES // 4)) == []
    assert one.feed(b"\n" + data)[-len(leases) :] == leases


@pytest.mark.parametrize(
    ("duid", "mac"),
    [
        ("00:01:00:01:2e:0c:1b:2a:52:54:00:12:34:56", MAC),
        ("00:03:00:01:52:54:00:12:34:56", MAC),
        ("00:03:00:01:52:54:00:12:34", None),
        ("00:03:00:06:52:54:00:12:34:56", None),
        ("00:02:00:01:52:54:00:12:34:56", None),
        ("00:04:03:02:01:00:05:04:07:06:08:09:0a:0b:0c:0d:0e:0f", None),
        ("", None),
        ("00:03:00:01:zz:54:00:12:34:56", None),
    ],
)
def test_mac_within_a_duid(duid: str, mac: str | None) -> None:
    assert mac_of_duid(duid) == mac
