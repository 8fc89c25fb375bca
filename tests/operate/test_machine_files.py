"""Lease files and inventories as they are written: in pieces, anew, under another inode, not at all."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.descriptors import open_descriptors

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate.machines import lease_file
from snow_owl_tftp.operate.machines.files import InventoryFile
from snow_owl_tftp.operate.machines.lease_file import LeaseFile
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.leases import LeaseTable

KEA_HEADER = (
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n"
)
FAR_S = int(time.time()) + 1_000_000


def dnsmasq(last: int, mac: int | None = None) -> str:
    return f"{FAR_S} 52:54:00:00:00:{last if mac is None else mac:02x} 10.0.0.{last} * *\n"


def kea(last: int, mac: int | None = None, lifetime_s: int = 3600) -> str:
    return f"10.0.0.{last},52:54:00:00:00:{last if mac is None else mac:02x},,{lifetime_s},{FAR_S},1,0,0,,0,,0\n"


def dhcpd(last: int, mac: int | None = None, state: str = "active") -> str:
    hardware = f"52:54:00:00:00:{last if mac is None else mac:02x}"
    return (
        f"lease 10.0.0.{last} {{\n  starts 4 2026/11/26 06:00:00;\n  ends epoch {FAR_S};\n"
        f"  binding state {state};\n  hardware ethernet {hardware};\n}}\n"
    )


class Followed:
    """A lease file in a folder of its own, and what is known of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "leases"
        self.table = LeaseTable()
        self.file = LeaseFile(str(self.path), self.table)

    def look(self) -> list[str]:
        outcome = self.file.look()
        self.again_s = outcome.again_s
        return [told.event for told in outcome.told]

    def append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def replace(self, text: str) -> None:
        other = self.path.with_name("other")
        other.write_text(text)
        other.rename(self.path)

    @property
    def known(self) -> dict[int, int]:
        """Last octet of the address, and of the MAC."""
        found = {last: self.table.find(f"10.0.0.{last}") for last in range(256)}
        return {last: int((seen.mac or "")[-2:], 16) for last, seen in found.items() if seen is not None}


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


KINDS: dict[str, tuple[str, Callable[..., str]]] = {
    "dnsmasq": ("", dnsmasq),
    "Kea": (KEA_HEADER, kea),
    "dhcpd": ("# made by hand\n", dhcpd),
}


@pytest.mark.parametrize("kind", KINDS)
def test_file_is_followed_as_it_grows(kind: str, followed: Followed) -> None:
    header, write = KINDS[kind]
    followed.path.write_text(header + write(1))
    assert followed.look() == []
    assert followed.known == {1: 1}
    for last in range(2, 6):
        followed.append(write(last))
        assert followed.look() == []
    followed.append(write(3, 33))
    followed.look()
    assert followed.known == {1: 1, 2: 2, 3: 33, 4: 4, 5: 5}


@pytest.mark.parametrize("kind", ["Kea", "dhcpd"])
def test_end_that_is_cut_waits_for_the_rest(kind: str, followed: Followed) -> None:
    header, write = KINDS[kind]
    followed.path.write_text(header + write(1))
    followed.look()
    text = write(2)
    for at in range(len(text) - 1):
        followed.append(text[at])
        followed.look()
        assert followed.known == {1: 1}
    followed.append(text[-1])
    followed.look()
    assert followed.known == {1: 1, 2: 2}


def test_file_of_dnsmasq_that_is_being_written_is_not_believed(followed: Followed) -> None:
    followed.path.write_text(dnsmasq(1) + dnsmasq(2))
    followed.look()
    for half in ("", dnsmasq(1)[:-20], dnsmasq(1) + dnsmasq(3)[:9]):
        followed.path.write_text(half)
        followed.look()
        assert followed.known == {1: 1, 2: 2}
        assert followed.again_s is not None
    followed.path.write_text(dnsmasq(1) + dnsmasq(3))
    followed.look()
    assert followed.known == {1: 1, 3: 3}
    assert followed.again_s is None


def test_file_of_dnsmasq_that_stays_as_it_is_is_believed_in_the_end(followed: Followed) -> None:
    followed.path.write_text(dnsmasq(1))
    followed.look()
    followed.path.write_text("")
    looks = 0
    while followed.look() == [] and followed.again_s is not None:
        looks += 1
        assert looks < 30
    assert followed.known == {}
    followed.append(dnsmasq(4))
    followed.look()
    assert followed.known == {4: 4}


def test_lease_that_is_given_back_is_forgotten(followed: Followed) -> None:
    followed.path.write_text(KEA_HEADER + kea(1) + kea(2))
    followed.look()
    followed.append(kea(1, lifetime_s=0))
    followed.look()
    assert followed.known == {2: 2}


def test_new_file_of_dhcpd_has_everything(followed: Followed) -> None:
    followed.path.write_text(dhcpd(1) + dhcpd(2))
    followed.look()
    followed.append(dhcpd(3))  # the old one's end, which nobody has read when it is replaced
    followed.replace("# new\n" + dhcpd(2, 22) + dhcpd(1, state="free"))
    followed.look()
    assert followed.known == {2: 22}


def test_cleaned_file_of_kea_begins_anew_and_nothing_is_forgotten(followed: Followed) -> None:
    followed.path.write_text(KEA_HEADER + kea(1) + kea(2))
    followed.look()
    followed.append(kea(3))
    followed.path.rename(f"{followed.path}.1")
    assert followed.look() == []
    assert followed.known == {1: 1, 2: 2, 3: 3}
    followed.path.write_text(KEA_HEADER)
    followed.look()
    followed.append(kea(2, 22))
    followed.look()
    assert followed.known == {1: 1, 2: 22, 3: 3}


@pytest.mark.parametrize("names", [(".completed",), (".2", ".1"), (".2",), (".1",)])
def test_what_kea_has_put_aside_is_read_first(names: tuple[str, ...], followed: Followed) -> None:
    for place, name in enumerate(names):
        Path(f"{followed.path}{name}").write_text(KEA_HEADER + kea(1, 10 + place) + kea(2, 10 + place))
    followed.path.write_text(KEA_HEADER + kea(2, 22))
    followed.look()
    assert followed.known == {1: 10 + len(names) - 1, 2: 22}


def test_what_kea_has_cleaned_stands_for_what_it_was_made_of(followed: Followed) -> None:
    Path(f"{followed.path}.completed").write_text(KEA_HEADER + kea(1))
    Path(f"{followed.path}.2").write_text(KEA_HEADER + kea(9))
    followed.path.write_text(KEA_HEADER)
    followed.look()
    assert followed.known == {1: 1}


def test_file_that_is_not_there_yet_is_told_once_and_read_when_it_comes(followed: Followed) -> None:
    assert followed.look() == ["lease file cannot be read"]
    assert followed.look() == []
    followed.path.write_text(dnsmasq(1))
    assert followed.look() == ["lease file is read again"]
    assert followed.known == {1: 1}
    followed.path.unlink()
    assert followed.look() == []
    assert followed.known == {1: 1}, "a lease lasts as long as it says"
    followed.path.write_text(dnsmasq(2))
    followed.look()
    assert followed.known == {2: 2}


def test_empty_file_is_a_file_of_no_leases_until_they_come(followed: Followed) -> None:
    followed.path.touch()
    assert followed.look() == []
    followed.append(KEA_HEADER[:10])
    assert followed.look() == []
    followed.append(KEA_HEADER[10:] + kea(1))
    assert followed.look() == []
    assert followed.known == {1: 1}


@pytest.mark.parametrize("text", ["root:x:0:0\n", "x" * 5000, "[[machine]]\n"])
def test_file_that_is_none_is_told_once_and_what_was_known_stays(text: str, followed: Followed) -> None:
    followed.path.write_text(dhcpd(1))
    followed.look()
    followed.replace(text)
    assert followed.look() == ["lease file cannot be read"]
    assert followed.look() == []
    assert followed.known == {1: 1}
    followed.replace(dhcpd(2))
    assert followed.look() == ["lease file is read again"]
    assert followed.known == {2: 2}


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_regular_file_is_not_waited_for(kind: str, followed: Followed) -> None:
    if kind == "fifo":
        os.mkfifo(followed.path)
    else:
        followed.path.mkdir()
    assert followed.look() == ["lease file cannot be read"]


def test_leases_beyond_the_bound_are_told_once(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.table = LeaseTable(max_size=2)
    followed.file = LeaseFile(str(followed.path), followed.table)
    followed.path.write_text(KEA_HEADER + "".join(map(kea, range(1, 6))))
    assert followed.look() == ["more leases than are kept"]
    followed.append(kea(7))
    assert followed.look() == []
    assert len(followed.table) == 2


def test_large_file_is_read_in_pieces_with_pauses(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(lease_file.time, "sleep", pauses.append)
    lines = [
        f"{FAR_S} 52:54:00:00:{n >> 8:02x}:{n & 255:02x} 10.{n >> 16}.{n >> 8 & 255}.{n & 255} * *\n"
        for n in range(10_000)
    ]
    followed.path.write_text("".join(lines))
    start_s = time.thread_time()
    followed.look()
    assert time.thread_time() - start_s < 2
    assert len(followed.table) == 10_000
    assert len(pauses) == followed.path.stat().st_size // (64 * 1024)


def test_descriptor_is_given_back(followed: Followed) -> None:
    before = open_descriptors()
    followed.path.write_text(dhcpd(1))
    followed.look()
    followed.replace(dhcpd(2))
    followed.look()
    followed.file.close()
    assert open_descriptors() == before
    followed.append(dhcpd(3))
    followed.look()
    assert open_descriptors() == before, "a look that was under way closes it"


# ---- inventories


def machine(name: str) -> str:
    return f'[[machine]]\naddress = "10.0.0.1"\nname = "{name}"\n'


class Listed:
    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "machines.toml"
        self.inventory = Inventory()
        self.file = InventoryFile(str(self.path), self.inventory)

    def write(self, text: str) -> None:
        other = self.path.with_name("other")
        other.write_text(text)
        other.rename(self.path)

    def look(self) -> list[str]:
        """Looks once more, as is asked for, where a file is met that has just changed."""
        outcome = self.file.look()
        if outcome.again_s is not None:
            assert outcome.told == ()
            outcome = self.file.look()
        assert outcome.again_s is None
        return [told.event for told in outcome.told]

    @property
    def name(self) -> str | None:
        entry = self.inventory.of_address("10.0.0.1")
        return entry.name if entry is not None else None


@pytest.fixture
def listed(tmp_path: Path) -> Listed:
    listed = Listed(tmp_path)
    listed.write(machine("lathe"))
    listed.file.learn(listed.file.fetch())
    return listed


def test_inventory_that_has_changed_is_read_again(listed: Listed) -> None:
    assert listed.look() == []
    listed.write(machine("mill"))
    assert listed.look() == ["inventory read again"]
    assert listed.look() == []
    assert listed.name == "mill"


def test_inventory_that_is_bad_changes_nothing_and_is_told_once(listed: Listed) -> None:
    for bad in ("[[machine]]\nmac = 5\n", "[[machine", machine("a") + machine("b")):
        listed.write(bad)
        assert listed.look() == ["inventory refused, the old one stays"]
        assert listed.look() == []
        assert listed.name == "lathe"
    listed.write(machine("mill"))
    assert listed.look() == ["inventory read again"]
    assert listed.name == "mill"


def test_inventory_that_vanishes_stays_known(listed: Listed) -> None:
    listed.path.unlink()
    assert listed.look() == ["inventory refused, the old one stays"]
    assert listed.look() == []
    assert listed.name == "lathe"
    listed.write(machine("mill"))
    assert listed.look() == ["inventory read again"]


def test_inventory_that_is_being_written_is_left_alone(listed: Listed) -> None:
    for text in ("", "[[machine]]\n", machine("mill"), machine("mill") + "# end\n"):
        listed.path.write_text(text)
        outcome = listed.file.look()
        assert (outcome.told, outcome.again_s is not None) == ((), True)
        assert listed.name == "lathe"
    assert [told.event for told in listed.file.look().told] == ["inventory read again"]
    assert listed.name == "mill"


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "unreadable"])
def test_inventory_that_cannot_be_read_is_refused_with_its_path(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "machines.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.symlink_to(path)
    with pytest.raises(ConfigError) as caught:
        InventoryFile(str(path), Inventory()).fetch()
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("; name a readable file, or none")
    assert "None" not in str(caught.value)
