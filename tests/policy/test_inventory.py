"""The inventory file: how it may be written, what is refused, and how quickly ten thousand machines are there."""

import json
import re
import time
from collections.abc import Callable

import pytest

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.machines import yaml_texts
from snow_owl_tftp.policy.machines.entries import Entry, entries_of
from snow_owl_tftp.policy.machines.formats import read_inventory
from snow_owl_tftp.policy.machines.inventory import Inventory

TOML = b"""
[[machine]]
mac = "52-54-00-12-34-56"
address = ["192.0.2.7", "2001:DB8::7"]
name = "lathe"
group = "shop"
arch = "arm64"
vars = { console = "ttyS0" }

[[machine]]
serial = "8d1f3b2a"
uuid = "030201000504070608090a0b0c0d0e0f"
"""
JSON = b"""{"machine": [
  {"mac": "52-54-00-12-34-56", "address": ["192.0.2.7", "2001:DB8::7"], "name": "lathe", "group": "shop",
   "arch": "arm64", "vars": {"console": "ttyS0"}},
  {"serial": "8d1f3b2a", "uuid": "030201000504070608090a0b0c0d0e0f"}]}"""
YAML = b"""
machine:
  - mac: 52-54-00-12-34-56
    address: [192.0.2.7, "2001:DB8::7"]
    name: lathe
    group: shop
    arch: arm64
    vars: {console: ttyS0}
  - serial: 8d1f3b2a
    uuid: 030201000504070608090a0b0c0d0e0f
"""
CSV = b"""# machines of the shop
mac,address,name,group,arch,vars.console,serial,uuid
52-54-00-12-34-56,192.0.2.7 2001:DB8::7,lathe,shop,arm64,ttyS0,,

,,,,,,8d1f3b2a,030201000504070608090a0b0c0d0e0f
"""
UUID = "03020100-0504-0706-0809-0a0b0c0d0e0f"
ENTRIES = [
    Entry(
        1,
        ("52:54:00:12:34:56",),
        ("192.0.2.7", "2001:db8::7"),
        (),
        (),
        "lathe",
        "shop",
        "arm64",
        {"console": "ttyS0"},
    ),
    Entry(2, (), (), ("8d1f3b2a",), (UUID,), None, None, None, {}),
]


@pytest.mark.parametrize(("ending", "data"), [("toml", TOML), ("json", JSON), ("csv", CSV), ("TOML", TOML)])
def test_inventory_is_the_same_however_it_is_written(ending: str, data: bytes) -> None:
    assert read_inventory(data, f"machines.{ending}") == ENTRIES


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_inventory_may_be_yaml_where_a_library_reads_it(ending: str) -> None:
    assert read_inventory(YAML, f"machines.{ending}") == ENTRIES
    # YAML 1.1 would take the one for a number to the base of 60, the other for false.
    assert read_inventory(b"- {mac: 52:54:00:12:34:56, name: no}", "m.yaml")[0].name == "no"
    shared = b"- {serial: a, vars: &v {console: ttyS0}}\n- {serial: b, vars: *v}\n"
    assert [entry.vars for entry in read_inventory(shared, "m.yaml")] == [{"console": "ttyS0"}] * 2
    for empty in (b"", b"\n", b"# nobody\n", b"---\n", b"machine:\n  []\n"):
        assert read_inventory(empty, "m.yaml") == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"- [", "not YAML: .*line 2"),
        (b"- {serial: a, serial: b}", "not YAML: line 1: a key that is no text, or stands there twice"),
        (b"- {[a]: b}", "not YAML: line 1: a key that is no text"),
        (b"- *a", "not YAML: line 1: nothing is called &a"),
        (b"- a\n---\n- b\n", "not YAML: line 2: a second document"),
        (b"[" * 100_000, "not YAML: line 1: nested more than 16 times"),
        (b"a: " * 100_000, "not YAML: "),
        (b"- " * 50_000, "not YAML: line 1: nested more than 16 times"),
        (b"\xff", "not YAML: "),
        (b"- &a [*a]", r"entry 1: expected a table, got \[\[\.\.\.\]\]"),
        (b"- !!python/object/apply:os.system [id]", r"entry 1: expected a table, got \['id'\]"),
    ],
)
def test_yaml_that_is_none_is_refused_and_ends_no_process(data: bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^m.yaml: {problem}"):
        read_inventory(data, "m.yaml")


def test_inventory_in_yaml_is_refused_with_the_remedy_where_no_library_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def import_module(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(yaml_texts, "import_module", import_module)
    with pytest.raises(ConfigError) as caught:
        read_inventory(YAML, "m.yaml")
    assert str(caught.value) == (
        'm.yaml: YAML needs PyYAML: install "snow-owl-tftp[yaml]", or write the inventory as TOML, JSON or CSV'
    )


@pytest.mark.parametrize("ending", ["toml", "json", "csv"])
def test_empty_file_has_no_machines(ending: str) -> None:
    assert read_inventory(b"", f"m.{ending}") == []
    assert read_inventory(b"\n", f"m.{ending}") == []


def test_list_alone_will_do() -> None:
    assert [entry.name for entry in read_inventory(b'[{"mac": "525400123456", "name": "a"}]', "m.json")] == ["a"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({}, "names no machine; give it a mac, address, serial or uuid"),
        ({"name": "lathe", "mac": []}, "names no machine; give it a mac, address, serial or uuid"),
        ({"mca": "x"}, "mca: unknown key; did you mean mac?"),
        ({"qqqq": "x"}, "qqqq: unknown key; what is yours goes into vars"),
        ({"mac": "52:54:00:12:34"}, 'mac: expected six octets such as "52:54:00:12:34:56", got "52:54:00:12:34"'),
        ({"mac": "52:54-00:12:34:56"}, 'mac: expected six octets such as "52:54:00:12:34:56"'),
        ({"mac": 5}, "mac: expected a text or a list of texts in quotes, got 5"),
        ({"mac": ["52:54:00:12:34:56", 5]}, "mac: expected a text or a list of texts in quotes"),
        ({"mac": "ff:ff:ff:ff:ff:ff"}, "mac: ff:ff:ff:ff:ff:ff is a group's or nobody's"),
        ({"mac": "000000000000"}, "mac: 00:00:00:00:00:00 is a group's or nobody's"),
        ({"mac": ".."}, "mac: expected six octets"),
        ({"address": "192.0.2.0/24"}, 'address: expected one address such as "192.0.2.7" or "2001:db8::7"'),
        ({"address": "lathe.example.org"}, "address: expected one address"),
        ({"address": "192.0.2.7\0"}, "address: expected one address"),
        ({"address": "fe80::1"}, "address: fe80::1 is another machine on every link; give its mac instead"),
        ({"uuid": "0302"}, "uuid: expected that of one machine"),
        ({"uuid": "0" * 32}, "uuid: expected that of one machine"),
        ({"uuid": "f" * 32}, "uuid: expected that of one machine"),
        ({"serial": "a/b"}, 'serial: expected 1..255 characters without "/"'),
        ({"serial": ""}, "serial: expected 1..255 characters"),
        ({"serial": "S", "name": ".."}, "name: expected 1..255 characters"),
        ({"serial": "S", "name": ".hidden"}, "name: expected 1..255 characters"),
        ({"serial": "S", "name": "a\nb"}, "name: expected 1..255 characters"),
        ({"serial": "S", "name": "x" * 256}, "name: expected 1..255 characters"),
        ({"serial": "S", "group": ["a"]}, "group: expected a text in quotes, got ['a']"),
        ({"serial": "S", "arch": "a\\b"}, "arch: expected 1..255 characters"),
        ({"serial": "S", "vars": "x"}, 'vars: expected a table, got "x"'),
        ({"serial": "S", "vars": {"a b": "x"}}, 'vars: expected a name of letters, digits and underscores, got "a b"'),
        ({"serial": "S", "vars": {"mac": "x"}}, "vars.mac: the name has a meaning of its own; choose another one"),
        ({"serial": "S", "vars": {"a": ["x"]}}, "vars.a: expected a text of at most 4096 characters, got ['x']"),
        ({"serial": "S", "vars": {"a": "x" * 4097}}, "vars.a: expected a text of at most 4096 characters"),
        ("lathe", 'expected a table, got "lathe"'),
    ],
)
def test_nonsense_is_refused_with_the_entry_and_the_remedy(table: object, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        entries_of([{"serial": "other"}, table], "machines.toml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"machines.toml: entry 2: {problem}")
    assert len(line) < 250


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("mac", "52:54:00:12:34:56", "525400123456"),
        ("address", "2001:db8::7", "2001:DB8:0::7"),
        ("address", "192.0.2.7", "::ffff:192.0.2.7"),
        ("serial", "abc", "ABC"),
        ("uuid", UUID, UUID.upper().replace("-", "")),
    ],
)
def test_double_is_refused_with_both_entries(key: str, first: str, second: str) -> None:
    tables: list[dict[str, object]] = [{key: first}, {"serial": "x"}, {key: [second]}]
    with pytest.raises(ConfigError, match=rf"^m: entry 3: {key}: entry 1 has .* too; remove it from one of them$"):
        entries_of(tables, "m")
    assert len(entries_of([{key: [first, second]}], "m")) == 1, "twice in one entry is once"


def test_two_machines_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^m: entry 2: name: entry 1 has"):
        entries_of([{"serial": "a", "name": "x"}, {"serial": "b", "name": "x"}], "m")


def test_all_problems_are_told_and_the_tenth_is_the_last() -> None:
    with pytest.raises(ConfigError) as caught:
        entries_of([{}] * 500, "m")
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "m: and 490 more problems"


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("m.toml", b"[[machine]]\nmac = = 1", "not TOML: .*line 2.*; mend it there"),
        ("m.toml", b"\xff", "not TOML: "),
        ("m.json", b'{"machine": [', "not JSON: "),
        ("m.json", b"[" * 100_000, "not JSON: "),
        ("m.toml", b"machine = " + b"[" * 100_000, "not TOML: "),
        ("m.json", b'{"machine": 5}', "machine: expected a list of tables, as "),
        ("m.json", b'{"machines": []}', "machines: unknown key; every machine is a "),
        ("m.csv", b"mac,host\n", 'not CSV: column "host" is none of mac, address, serial, uuid, name, group, arch or '),
        ("m.csv", b"mac,mac\n", 'not CSV: column "mac" stands there twice'),
        ("m.csv", b"mac,name\n525400123456,a,b\n", "not CSV: line 2: 3 cells under 2 columns"),
        ("m.csv", b'mac,name\n"525400123456,a\n', "not CSV: line "),
        ("m.txt", b"", "an inventory is TOML, YAML, JSON or CSV; end its name with "),
        ("m", b"", "an inventory is TOML, YAML, JSON or CSV; end its name with "),
    ],
)
def test_file_that_is_none_is_refused_with_its_name(name: str, data: bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(name)}: {problem}"):
        read_inventory(data, name)


def ten_thousand() -> list[dict[str, object]]:
    return [
        {
            "mac": f"52:54:00:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
            "address": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}",
            "serial": f"SN{n:06d}",
            "name": f"m{n:05d}",
            "group": f"g{n % 50}",
            "vars": {"console": "ttyS0", "rack": f"r{n % 100}"},
        }
        for n in range(1, 10_001)
    ]


def as_toml(tables: list[dict[str, object]]) -> bytes:
    lines = []
    for table in tables:
        lines.append("[[machine]]")
        for key, value in table.items():
            shown = json.dumps(value)
            if isinstance(value, dict):
                shown = "{ " + ", ".join(f"{name} = {json.dumps(text)}" for name, text in value.items()) + " }"
            lines.append(f"{key} = {shown}")
    return "\n".join(lines).encode()


def as_csv(tables: list[dict[str, object]]) -> bytes:
    keys = ("mac", "address", "serial", "name", "group")
    rows = [",".join(str(table[key]) for key in keys) for table in tables]
    return "\n".join([",".join(keys), *rows]).encode()


def as_json(tables: list[dict[str, object]]) -> bytes:
    return json.dumps(tables).encode()


def as_yaml(tables: list[dict[str, object]]) -> bytes:
    return json.dumps(tables, indent=1).encode()  # a subset of it


@pytest.mark.parametrize("write", [as_toml, as_json, as_csv, as_yaml])
def test_ten_thousand_machines_are_there_within_a_second(
    write: Callable[[list[dict[str, object]]], bytes],
) -> None:
    data, ending = write(ten_thousand()), write.__name__.removeprefix("as_")
    start_s = time.thread_time()
    inventory = Inventory(read_inventory(data, f"m.{ending}"))
    took_s = time.thread_time() - start_s
    assert inventory.size == 10_000
    entry = inventory.of_mac("52:54:00:00:27:10")
    assert entry is not None
    assert entry.name == "m10000"
    assert took_s < 1, took_s
