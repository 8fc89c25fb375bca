"""Whatever stands in a file or a name: machines are found, or it is refused in words; nothing else happens."""

import json
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policy.test_lease_files import FILES

from snow_owl_tftp.config.machines import DEFAULT_PATTERNS
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.linux.neighbours import AllTold, neighbours_in
from snow_owl_tftp.policy.machines.claims import NameClaims
from snow_owl_tftp.policy.machines.dhcp import reader_of
from snow_owl_tftp.policy.machines.entries import entries_of
from snow_owl_tftp.policy.machines.formats import read_inventory
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.spellings import address_of_hex, is_station, parse_address, parse_mac, parse_uuid

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["52:54:00:12:34:56", "192.0.2.7", "2001:db8::7", "..", ".", "", "a/b", "\0", "fe80::1", "ﬀ", "\udcff"]
    ),
)
KEYS = st.one_of(st.sampled_from(["mac", "address", "serial", "uuid", "name", "group", "arch", "vars"]), TEXTS)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)


def refusal_of(call: Callable[[], object]) -> str:
    """What a ConfigError says; empty: there was none."""
    try:
        call()
    except ConfigError as error:
        return str(error)
    return ""


INVENTORY = Inventory(entries_of([{"serial": "8d1f3b2a"}, {"address": "192.168.1.178"}], "test"))
CLAIMS = NameClaims((*DEFAULT_PATTERNS, "**/{serial}/**"), INVENTORY)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=4))
def test_tables_are_machines_that_can_stand_in_a_path_or_are_refused(tables: object) -> None:
    if refusal := refusal_of(lambda: entries_of(tables, "m")):
        assert all(line.startswith("m: ") and line.isprintable() for line in refusal.split("\n"))
        return
    for entry in entries_of(tables, "m"):
        assert all(parse_mac(mac) == mac and is_station(mac) for mac in entry.macs)
        assert all(parse_address(address) == address for address in entry.addresses)
        assert all(parse_uuid(uuid) == uuid for uuid in entry.uuids)
        for text in (entry.name, entry.group, entry.arch, *entry.serials):
            assert text is None or (
                text.strip("/\\\0\n") == text != "" and not text.startswith(".") and "/" not in text
            )


@given(st.sampled_from(["toml", "json", "yaml", "csv"]), st.binary(max_size=200))
@settings(max_examples=400)
def test_bytes_are_an_inventory_or_refused(ending: str, data: bytes) -> None:
    refusal = refusal_of(lambda: read_inventory(data, f"m.{ending}"))
    assert not refusal or refusal.startswith(f"m.{ending}: ")


@given(VALUES)
def test_json_is_an_inventory_or_refused(value: object) -> None:
    for ending in ("json", "yaml"):
        refusal = refusal_of(lambda ending=ending: read_inventory(json.dumps(value).encode(), f"m.{ending}"))
        assert not refusal or refusal.startswith(f"m.{ending}: ")


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
def test_leases_do_not_depend_on_how_a_file_is_cut(kind: str, data: st.DataObject) -> None:
    whole, leases, _ = FILES[kind]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=8)) | {0, len(whole)})
    reader = reader_of(whole)
    assert reader is not None
    assert [lease for start, end in pairwise(cuts) for lease in reader.feed(whole[start:end])] == leases


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
def test_broken_lease_file_gives_leases_of_machines_only(kind: str, data: st.DataObject) -> None:
    whole, _, _ = FILES[kind]
    broken = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)):
        broken[place] = data.draw(st.integers(0, 255))
    reader = reader_of(whole)
    assert reader is not None
    for lease in reader.feed(bytes(broken)):
        assert parse_address(lease.address) == lease.address
        assert lease.mac is None or (parse_mac(lease.mac) == lease.mac and is_station(lease.mac))


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"01-52-54-00-12-34-56", b"8d1f3b2a", b"C0A801B2"]), max_size=5)
)
def test_name_claims_a_machine_or_nothing(parts: list[bytes]) -> None:
    found = CLAIMS.sight("192.0.2.1", (b"/".join(parts),))
    if found is not None:
        assert (found.mac, found.uuid, found.entry) != (None, None, None)
        assert found.mac is None or (parse_mac(found.mac) == found.mac and is_station(found.mac))


@given(st.text(max_size=40))
def test_text_is_spelled_in_one_way_or_is_none(text: str) -> None:
    for parse in (parse_mac, parse_uuid, parse_address):
        spelled = parse(text)
        assert spelled is None or parse(spelled) == spelled
    assert address_of_hex(text) is None or parse_address(address_of_hex(text) or "") == address_of_hex(text)


@given(st.binary(max_size=200))
def test_datagram_of_the_kernel_is_read_or_passed_over(datagram: bytes) -> None:
    with suppress(OSError):  # it may be a refusal
        for said in neighbours_in(datagram):
            assert isinstance(said, AllTold) or said.mac is None or parse_mac(said.mac) == said.mac
