"""What a requested name says of who asks."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snow_owl_tftp.config.machines import DEFAULT_PATTERNS
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.machines.claims import NameClaims
from snow_owl_tftp.policy.machines.entries import entries_of
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.sighting import Sighting

MAC = "52:54:00:ab:cd:ef"
UUID = "03020100-0504-0706-0809-0a0b0c0d0e0f"
HOST = "198.51.100.1"
INVENTORY = Inventory(
    entries_of([{"serial": "8D1F3B2A", "name": "pi"}, {"address": "192.168.1.178", "name": "switch"}], "test")
)


def claim(path: bytes, *patterns: str, inventory: Inventory = INVENTORY) -> Sighting | None:
    return NameClaims(patterns or DEFAULT_PATTERNS, inventory).sight(HOST, (path,))


@pytest.mark.parametrize(
    "path",
    [
        b"pxelinux.cfg/01-52-54-00-ab-cd-ef",
        b"bios/pxelinux.cfg/01-52-54-00-AB-CD-EF",
        b"01-52-54-00-ab-cd-ef.ipxe",
        b"52-54-00-ab-cd-ef.ipxe",
        b"MAC-525400abcdef.ipxe",
        b"grub/grub.cfg-01-52-54-00-ab-cd-ef",
        b"grub2/grub.cfg-52:54:00:ab:cd:ef",
        b"grub/menu.lst.01525400ABCDEF",
        b"52:54:00:ab:cd:ef/ipxe.efi",
        b"52-54-00-ab-cd-ef/onie-installer-x86_64",
        b"firmware/525400abcdef/start4.elf",
        b"SEP525400ABCDEF.cnf.xml",
        b"CTLSEP525400ABCDEF.tlv",
        b"SIP525400ABCDEF.cnf",
        b"cfg525400abcdef.xml",
        b"525400abcdef.cfg",
        b"525400abcdef-boot.log",
        b"logs/525400abcdef-app.log",
    ],
)
def test_name_of_one_machine_claims_its_mac(path: bytes) -> None:
    assert claim(path) == Sighting(mac=MAC)


@pytest.mark.parametrize("path", [b"pxelinux.cfg/" + UUID.encode(), UUID.upper().encode() + b"/boot.cfg"])
def test_name_may_claim_a_uuid(path: bytes) -> None:
    assert claim(path) == Sighting(uuid=UUID)


@pytest.mark.parametrize(
    "path",
    [
        b"pxelinux.cfg/default",
        b"pxelinux.0",
        b"pxelinux.cfg/01-52-54-00-ab-cd",
        b"pxelinux.cfg/01-52-54-00-ab-cd-ef-00",
        b"pxelinux.cfg/01-52:54:00:ab:cd:ef",
        b"pxelinux.cfg/01-52-54-00-ab-cd-eg",
        b"x01-52-54-00-ab-cd-ef",
        b"01-00-00-00-00-00-00",
        b"01-ff-ff-ff-ff-ff-ff",
        b"01-01-00-5e-00-00-01",
        b"SEP525400ABCDEF",
        b"0525400abcdef.cfg",
        b"",
        b".",
        b"01-52-54-00-ab-cd-ef\n",
        b"\xff01-52-54-00-ab-cd-ef",
    ],
)
def test_other_names_claim_nothing(path: bytes) -> None:
    assert claim(path) is None


def test_every_spelling_of_a_name_is_looked_at() -> None:
    claims = NameClaims(DEFAULT_PATTERNS, INVENTORY)
    cut = (b"01-52-54-00-ab-cd-ef\xff\xff", b"01-52-54-00-ab-cd-ef")
    assert claims.sight(HOST, cut) == Sighting(mac=MAC)
    assert claims.sight(HOST, ()) is None


def test_serial_number_counts_only_where_the_inventory_has_it() -> None:
    found = claim(b"8d1f3b2a/start4.elf")
    assert found is not None
    assert found.entry is not None
    assert found.entry.name == "pi"
    assert claim(b"8d1f3b2b/start4.elf") is None
    assert claim(b"8d1f3b2a") is None, "no directory"
    assert claim(b"8d1f3b2a/start4.elf", inventory=Inventory()) is None


def test_serial_number_is_found_in_any_part_where_the_pattern_says_so() -> None:
    for path in (b"boot/pi/8d1f3b2a/start4.elf", b"8d1f3b2a/boot/x"):
        found = claim(path, "**/{serial}/**")
        assert found is not None
        assert found.entry is not None


@pytest.mark.parametrize("path", [b"pxelinux.cfg/C0A801B2", b"C0A801B2/onie-installer", b"grub/grub.cfg-C0A801B2"])
def test_address_in_hexadecimal_counts_only_where_the_inventory_has_it(path: bytes) -> None:
    found = claim(path)
    assert found is not None
    assert found.entry is not None
    assert found.entry.name == "switch"
    assert claim(path.replace(b"B2", b"B3")) is None
    assert claim(path.replace(b"B2", b"B")) is None


def test_patterns_are_a_setting() -> None:
    assert claim(b"config-525400abcdef-x.txt", "config-{mac_plain}-*.txt") == Sighting(mac=MAC)
    assert claim(b"a/config-525400abcdef-x.txt", "config-{mac_plain}-*.txt") is None
    assert claim(b"01-52-54-00-ab-cd-ef", "config-{mac_plain}-*.txt") is None
    assert claim(b"a.b/525400abcdef", "/a.b/{mac_plain}") == Sighting(mac=MAC)
    assert claim(b"aXb/525400abcdef", "/a.b/{mac_plain}") is None, "a dot is a dot"
    assert NameClaims((), INVENTORY).sight(HOST, (b"01-52-54-00-ab-cd-ef",)) is None


@pytest.mark.parametrize(
    "pattern",
    ["", "x", "{mac", "{mac}{mac_plain}", "{host}", "a**{mac}", "**/x/**/{mac}", "*-*-{mac}", "a//{mac}", "../{mac}",
     "a\\{mac}", "/**", "{}"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_with_what_would_be_one(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NameClaims((pattern,), INVENTORY)
    assert str(caught.value).startswith(f'"{pattern}": expected one of {{mac}} {{mac_dashes}}')
    assert '"**/01-{mac_dashes}"' in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [b"52-54-00-ab-cd-" * 34, b"a/" * 250, b"SEP" * 170, b"-" * 510, b"0" * 510, b"01-52-54-00-ab-cd-ee-" * 24,
     b"525400abcdef" * 42, b"1/" * 255],
)  # fmt: skip
def test_no_name_makes_the_search_long(path: bytes) -> None:
    claims = NameClaims((*DEFAULT_PATTERNS, "**/{serial}/**"), INVENTORY)
    start_ns = time.thread_time_ns()
    for _ in range(20):
        claims.sight(HOST, (path,))
    assert (time.thread_time_ns() - start_ns) / 20 < 3_000_000


SERIALS = [
    "{serial}/**",
    "**/{serial}/**",
    "**/*{serial}-0",
    "{serial}*x",
    "**/a?/{serial}",
    "[b]-{serial}.cfg",
    "a/*/{serial}",
]


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(SERIALS), min_size=1, max_size=4),
    st.lists(st.sampled_from(["8d1f3b2a", "a?", "/", "a", "-0", "x", "[b]-", ".cfg", "b"]), min_size=1, max_size=7),
    st.booleans(),
)
def test_serial_number_is_found_as_by_each_pattern_alone(
    patterns: list[str], pieces: list[str], are_many: bool
) -> None:
    padding = [f"{'no' * 20}/{number}/{{serial}}" for number in range(10)] if are_many else []
    claims = NameClaims([*padding, *patterns], INVENTORY)
    path = "/".join(filter(None, "".join(pieces).split("/"))) or "a"
    found = claims.sight("192.0.2.1", (path.encode(),))
    alone = [
        match[match.lastgroup or 0] for expression in claims._serials for match in expression.finditer(path)
    ]  # each of them asked, whether the name fits or not
    entries = [entry for serial in alone if (entry := INVENTORY.of_serial(serial)) is not None]
    assert (found and found.entry) == (entries[0] if entries else None)


@pytest.mark.parametrize("pattern", ["**/*{serial}-%d", "**/{serial}*-%d", "{serial}-%d/**", "**/a*{serial}/x%d"])
def test_no_name_is_long_compared_with_fifty_patterns(pattern: str) -> None:
    claims = NameClaims([pattern % number for number in range(50)], INVENTORY)
    for piece in (b"a", b"0/", b"-0", b"a-7/", b"00-", b"\xff", b"x-"):
        path = (piece * 505)[:505]
        used_s = []
        for _ in range(5):
            began_s = time.thread_time()
            claims.sight("192.0.2.1", (path,))
            used_s.append(time.thread_time() - began_s)
        assert min(used_s) < 0.002, path  # measured: 0.2 ms; one pattern after the other takes 8 ms
