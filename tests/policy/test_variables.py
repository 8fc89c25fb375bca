"""Variables in a text of the operator's: what they stand for, and what may never stand in a path."""

import pytest

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.policy.variables import Text, Values

LATHE = Machine(
    name="lathe",
    mac="52:54:00:12:34:ab",
    uuid="4c4c4544-0000-1000-8000-000000000001",
    serial="CN-7",
    group="cnc",
    vars={"rack": "r7", "name": "other"},
)


def filled(
    text: str, machine: Machine | None = LATHE, host: str = "192.0.2.7", server: str | None = None
) -> str | None:
    return Text(text).fill(Values(host, lambda: server, machine))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("common", "common"),
        ("m/{mac}/x", "m/52:54:00:12:34:ab/x"),
        ("01-{mac_dashes}", "01-52-54-00-12-34-ab"),
        ("{mac_plain}", "5254001234ab"),
        ("{address}", "192.0.2.7"),
        ("{address_hex}", "C0000207"),
        ("{serial}-{uuid}", "CN-7-4c4c4544-0000-1000-8000-000000000001"),
        ("{group}/{name}", "cnc/lathe"),
        ("{rack}", "r7"),
        ("{nothing}", None),
        ("a/{mac}/{nothing}", None),
        ("{server_address}", None),
    ],
)
def test_variable_stands_for_what_is_known(text: str, expected: str | None) -> None:
    assert filled(text) == expected


def test_addresses_are_those_of_the_family_that_was_meant() -> None:
    assert filled("{address} {address_hex}", host="::ffff:10.0.0.1") == "10.0.0.1 0A000001"
    assert filled("{address}", host="fe80::1%eth0") == "fe80::1"
    assert filled("{address_hex}", host="fd00::1") == "FD" + "0" * 29 + "1"
    assert filled("{server_address}", server="::ffff:10.0.0.2") == "10.0.0.2"


def test_unknown_machine_has_no_variables_but_addresses() -> None:
    assert filled("{mac}", None) is None
    assert filled("{rack}", None) is None
    assert filled("{address}", None) == "192.0.2.7"


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", ".hidden", "a/b", "/", "../x", "a\\b", "a\0b", "a\nb", "\x7f", "a\x85", "x" * 256, "é" * 128],
)
def test_value_that_could_lead_elsewhere_counts_as_missing(value: str) -> None:
    machine = Machine(name=value, mac=value, serial=value, uuid=value, group=value, vars={"rack": value})
    for name in ("name", "mac", "mac_plain", "serial", "uuid", "group", "rack"):
        assert filled(f"m/{{{name}}}", machine) is None, name


def test_longest_value_and_one_that_is_no_utf8_may_stand_in_a_path() -> None:
    assert filled("{serial}", Machine(serial="x" * 255)) == "x" * 255
    assert filled("{serial}", Machine(serial="\udce9")) == "\udce9"


@pytest.mark.parametrize("text", ["{", "}", "a{b", "{}", "{Mac}", "{{mac}}", "{mac", "{a.b}"])
def test_brace_that_belongs_to_no_variable_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="has a brace that belongs to no variable"):
        Text(text)
