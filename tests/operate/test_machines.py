"""A server that knows its machines: from files that change, from the kernel, from a DHCP server, from names."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.namespaces import Host, one_link
from tests.support.server import Address, ServerProcess, run_command, serve_command, wait_for

from snow_owl_tftp.operate.machines import MachineWatch
from snow_owl_tftp.policy.machines import NO_MACHINES

MAC = "52:54:00:12:34:56"
PXE = "pxelinux.cfg/01-52-54-00-12-34-56"
CLIENT = "127.0.0.1"
FAR_S = 4_000_000_000
BY_ADDRESS = f'[[machine]]\naddress = "{CLIENT}"\nname = "%s"\n'
BY_MAC = f'[[machine]]\nmac = "{MAC}"\nname = "%s"\n'


class Served:
    """A server whose inventory, lease file and configuration the test writes."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def lines(self, event: str | tuple[str, ...] = "") -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.server.log.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in parsed if line["event"].startswith(event)]

    def ask(self, name: str = "small", within: Host | None = None) -> dict[str, Any]:
        """Asks for a file and returns the line about it."""
        before = len(self.lines(("transfer", "request")))
        within.run(get, self.server.address, name) if within is not None else get(self.server.address, name)
        return wait_for(lambda: self.lines(("transfer", "request"))[before:], "a line")[0]

    def reload(self, toml: str) -> list[dict[str, Any]]:
        (self.folder / "owl.toml").write_text(toml)
        before = len(self.lines())
        self.server.signal(signal.SIGHUP)
        ends = ("settings reloaded", "reload refused")
        wait_for(lambda: any(line["event"].startswith(ends) for line in self.lines()[before:]), "a reload")
        return [line for line in self.lines()[before:] if line["event"].startswith(ends)]


def get(address: Address, name: str) -> bytes:
    with Client(address) as client:
        try:
            return client.get(name).payload
        except Refused:
            return b""


def aged(path: Path, text: str) -> None:
    """As a tool writes a file that others read: whole, and then by its name."""
    other = path.with_name(f"{path.name}.new")
    other.write_text(text)
    other.rename(path)


@contextmanager
def serve(folder: Path, machines: str, *, bind: str = "127.0.0.1:0", flags: tuple[str, ...] = ()) -> Iterator[Served]:
    root = folder / "root"
    (root / "pxelinux.cfg").mkdir(parents=True, exist_ok=True)
    (root / "small").write_bytes(b"ten bytes.")
    (root / PXE).write_bytes(b"default linux")
    config = folder / "owl.toml"
    config.write_text(f'root_dir = "{root}"\n{machines}')
    arguments = ("--config", str(config), "--log-format", "json", *flags)
    with serve_command(None, *arguments, stderr_path=folder / "stderr", binds=(bind,)) as server:
        served = Served(server, folder)
        wait_for(lambda: served.lines("server started"), "its first line, which follows the ready line")
        yield served


def test_lines_and_events_name_the_machine(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_ADDRESS % "lathe")
    audit = tmp_path / "audit.json"
    toml = (
        f'[logging]\naudit_enabled = true\naudit_file = "{audit}"\n[machines]\ninventory = "{tmp_path}/machines.toml"\n'
    )
    with serve(tmp_path, toml, flags=("--log-level", "debug")) as served:
        assert served.ask()["machine"] == "lathe"
        assert served.ask("missing")["machine"] == "lathe"
        (done,) = wait_for(lambda: served.lines("transfer completed"), "the end")
        assert done["machine"] == "lathe"
    events = {event["event_type"]: event for event in map(json.loads, audit.read_text().splitlines())}
    for kind in ("transfer_started", "transfer_completed", "read_denied"):
        assert events[kind]["machine"] == "lathe"
    assert "machine" not in events["server_started"]
    (ended,) = served.lines("server stopped")
    assert (ended["machines"], ended["leases"], ended["machines_left_out"]) == (1, 0, 0)


def test_machine_that_nobody_has_named_is_told_by_what_it_is_known_by(tmp_path: Path) -> None:
    """Of a lease or a neighbour there is no more than the MAC."""
    leases, audit = tmp_path / "dnsmasq.leases", tmp_path / "audit.json"
    leases.write_text(f"{FAR_S} {MAC} {CLIENT} * *\n")
    toml = f'[logging]\naudit_enabled = true\naudit_file = "{audit}"\n[names]\noptional = ["*.lst"]\n[machines]\n'
    with serve(tmp_path, f'{toml}leases = ["{leases}"]\n', flags=("--log-level", "debug")) as served:
        assert served.ask()["machine"] == MAC
        served.ask("missing")
        with Client(served.server.address) as client, pytest.raises(Refused):
            client.get("a.lst")
        (line,) = wait_for(lambda: served.lines("optional_missing"), "the line")
        assert line["machine"] == MAC
    events = {event["event_type"]: event for event in map(json.loads, audit.read_text().splitlines())}
    for kind in ("transfer_started", "transfer_completed", "read_denied", "optional_missing"):
        assert events[kind]["machine"] == MAC


def test_claim_of_an_unknown_machine_is_told_as_a_claim(tmp_path: Path) -> None:
    with serve(tmp_path, '[machines]\nsources = ["name"]\n') as served:
        line = served.ask(PXE)
        assert line["claims_machine"] == MAC
        assert "machine" not in line


def test_request_that_the_engine_answers_by_itself_names_its_machine_too(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_ADDRESS % "lathe")
    toml = f'[machines]\ninventory = "{tmp_path}/machines.toml"\n'
    with serve(tmp_path, toml, flags=("--log-level", "debug")) as served, Client(served.server.address) as client:
        for _ in range(8):
            assert client.get("small").payload == b"ten bytes."
        wait_for(lambda: len(served.lines("transfer completed")) == 8, "their ends")
        assert {line["machine"] for line in served.lines("transfer completed")} == {"lathe"}
        assert len(served.lines("transfer started")) < 8, "knowing machines costs no flow"


def test_claim_has_a_field_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_MAC % "lathe")
    with serve(tmp_path, f'[machines]\ninventory = "{tmp_path}/machines.toml"\n') as served:
        line = served.ask(PXE)
        assert line["claims_machine"] == "lathe"
        assert "machine" not in line
        assert "claims_machine" not in served.ask()


def test_order_of_sources_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_ADDRESS % "mill" + BY_MAC % "lathe")
    toml = f'[machines]\ninventory = "{tmp_path}/machines.toml"\nsources = '
    with serve(tmp_path, f'{toml}["inventory", "name"]\n') as served:
        assert served.ask(PXE)["machine"] == "mill"
        served.reload(f'root_dir = "{tmp_path}/root"\n{toml}["name", "inventory"]\n')
        assert served.ask(PXE)["claims_machine"] == "lathe"
        assert served.ask()["machine"] == "mill"
        served.reload(f'root_dir = "{tmp_path}/root"\n{toml}[]\n')
        assert "claims_machine" not in served.ask(PXE)


def test_patterns_of_names_are_a_setting(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_MAC % "lathe")
    toml = f'[machines]\ninventory = "{tmp_path}/machines.toml"\nname_patterns = ["config-{{mac_plain}}.txt"]\n'
    with serve(tmp_path, toml) as served:
        assert "claims_machine" not in served.ask(PXE)
        assert served.ask("config-525400123456.txt")["claims_machine"] == "lathe"


def test_inventory_that_changes_is_known_without_a_signal(tmp_path: Path) -> None:
    inventory = tmp_path / "machines.toml"
    inventory.write_text(BY_ADDRESS % "lathe")
    with serve(tmp_path, f'[machines]\ninventory = "{inventory}"\n') as served:
        for name in ("mill", "drill"):
            aged(inventory, BY_ADDRESS % name)
            wait_for(lambda name=name: served.ask()["machine"] == name, "the new list")
        aged(inventory, BY_ADDRESS % "saw" + "[[machine]]\nname = 5\n")
        (line,) = wait_for(lambda: served.lines("inventory refused"), "the refusal")
        assert "entry 2" in line["reason"]
        assert line["level"] == "error"
        assert served.ask()["machine"] == "drill"
        inventory.write_text(BY_ADDRESS % "saw")  # in place
        wait_for(lambda: served.ask()["machine"] == "saw", "the mended list")
        assert len(served.lines("inventory refused")) == 1


def test_inventory_behind_links_is_followed(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"release{number}").mkdir()
        (tmp_path / f"release{number}" / "machines.toml").write_text(BY_ADDRESS % f"lathe{number}")
    current = tmp_path / "current"
    current.symlink_to("release1")
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "machines.toml").symlink_to("../current/machines.toml")
    with serve(tmp_path, f'[machines]\ninventory = "{folder}/machines.toml"\n') as served:
        assert served.ask()["machine"] == "lathe1"
        (tmp_path / "release1" / "machines.toml").write_text(BY_ADDRESS % "lathe1b")
        wait_for(lambda: served.ask()["machine"] == "lathe1b", "a change behind the links")


def test_inventory_that_is_bad_at_the_start_is_an_operators_error(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    inventory = tmp_path / "machines.toml"
    config = tmp_path / "owl.toml"
    config.write_text(f'root_dir = "{tmp_path}/root"\n[machines]\ninventory = "{inventory}"\n')
    for text, problem in (
        (None, "No such file or directory; name a readable file, or none"),
        ("[[machine]]\nmac = 'x'\n", 'entry 1: mac: expected six octets such as "52:54:00:12:34:56", got "x"'),
    ):
        if text is not None:
            inventory.write_text(text)
        done = run_command("--config", str(config), "--bind", "127.0.0.1:0")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.endswith(f"machines.inventory: {inventory}: {problem}")


def test_inventory_below_the_root_is_refused_at_the_start_and_at_a_reload(tmp_path: Path) -> None:
    inside = tmp_path / "root" / "machines.toml"
    with serve(tmp_path, "") as served:
        inside.write_text(BY_ADDRESS % "lathe")
        link = tmp_path / "link.toml"
        link.symlink_to(inside)
        (line,) = served.reload(f'root_dir = "{tmp_path}/root"\n[machines]\ninventory = "{link}"\n')
        assert line["event"].startswith("reload refused")
        assert ": lies below root_dir, or a root of a rule, where clients can read it; name " in line["reason"]
    done = run_command("--config", str(tmp_path / "owl.toml"), "--bind", "127.0.0.1:0")
    assert done.returncode == 2
    assert f"machines.inventory: {link}: lies below root_dir" in done.stderr


def test_inventory_below_a_root_of_a_rule_is_refused(tmp_path: Path) -> None:
    inventory = tmp_path / "site/lists/machines.toml"
    inventory.parent.mkdir(parents=True)
    inventory.write_text(BY_ADDRESS % "lathe")
    (tmp_path / "root").mkdir()
    config = tmp_path / "owl.toml"
    for roots in (f"{tmp_path}/site", f"{tmp_path}/site/{{name}}", f"{tmp_path}/si{{name}}"):
        rule = f'[[rules]]\nroots = ["{roots}"]\n'
        config.write_text(f'root_dir = "{tmp_path}/root"\n[machines]\ninventory = "{inventory}"\n{rule}')
        done = run_command("--config", str(config), "--bind", "127.0.0.1:0")
        assert done.returncode == 2
        assert f"machines.inventory: {inventory}: lies below root_dir, or a root of a rule, where" in done.stderr


def test_pattern_that_is_none_is_an_operators_error(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    config = tmp_path / "owl.toml"
    config.write_text(f'root_dir = "{tmp_path}/root"\n[machines]\nname_patterns = ["boot.cfg"]\n')
    done = run_command("--config", str(config), "--bind", "127.0.0.1:0")
    assert done.returncode == 2
    assert 'machines.name_patterns: "boot.cfg": expected one of {mac}' in done.stderr


def test_reload_exchanges_what_is_known_or_changes_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(BY_ADDRESS % "lathe")
    head = f'root_dir = "{tmp_path}/root"\n'
    with serve(tmp_path, f'[machines]\ninventory = "{first}"\n') as served:
        (line,) = served.reload(f'{head}hidden = "serve"\n[machines]\ninventory = "{second}"\n')
        assert line["event"].startswith("reload refused")
        assert f"machines.inventory: {second}: No such file" in line["reason"]
        assert served.ask()["machine"] == "lathe"
        second.write_text(BY_ADDRESS % "mill")
        (line,) = served.reload(f'{head}hidden = "serve"\n[machines]\ninventory = "{second}"\n')
        assert line["changed"] == "hidden,machines.inventory"
        assert served.ask()["machine"] == "mill"
        aged(second, BY_ADDRESS % "drill")
        wait_for(lambda: served.ask()["machine"] == "drill", "the other file is followed")
        served.reload(head)
        assert "machine" not in served.ask()


def test_lease_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_MAC % "lathe")
    leases = tmp_path / "dnsmasq.leases"
    toml = f'[machines]\ninventory = "{tmp_path}/machines.toml"\nleases = ["{leases}"]\n'
    with serve(tmp_path, toml) as served:
        wait_for(lambda: served.lines("lease file cannot be read"), "a line about it")
        (line,) = served.lines("lease file cannot be read")
        assert (line["file"], line["remedy"]) == (str(leases), "it is read once it is there")
        assert "machine" not in served.ask()
        leases.write_text(f"{FAR_S} {MAC} {CLIENT} * *\n")
        wait_for(lambda: served.ask().get("machine") == "lathe", "the lease")
        leases.write_text(f"{FAR_S} 52:54:00:65:43:21 {CLIENT} * *\n")
        wait_for(lambda: served.ask().get("machine") == "52:54:00:65:43:21", "another machine's lease")


def test_lease_that_was_just_written_is_known_in_a_moment(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_MAC % "lathe")
    leases = tmp_path / "kea-leases4.csv"
    leases.write_text("address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state\n")
    toml = f'[machines]\ninventory = "{tmp_path}/machines.toml"\nleases = ["{leases}"]\n'
    with serve(tmp_path, toml) as served:
        time.sleep(0.2)  # the first look is over, and nothing is due for half a minute
        with leases.open("a") as file:
            file.write(f"{CLIENT},{MAC},,3600,{FAR_S},1,0,0,,0\n")
        wait_for(lambda: served.ask().get("machine") == "lathe", "the lease", deadline_s=5)


# ---- other hosts


def mac_of(host: Host, device: str, mac: str) -> None:
    host.ip("link", "set", device, "down")
    host.ip("link", "set", device, "address", mac)
    host.ip("link", "set", device, "up")


@pytest.mark.parametrize("address", ["10.9.0.1", "[fd09::1]"])
def test_neighbour_is_known_at_its_first_request(address: str, tmp_path: Path) -> None:
    with one_link() as (server_host, client_host), ExitStack() as stack:
        (link,) = json.loads(client_host.ip("-j", "link", "show", "l0"))
        (tmp_path / "machines.toml").write_text((BY_MAC % "lathe").replace(MAC, link["address"]))
        serving = serve(tmp_path, f'[machines]\ninventory = "{tmp_path}/machines.toml"\n', bind=f"{address}:0")
        served = server_host.run(stack.enter_context, serving)
        assert served.ask(within=client_host)["machine"] == "lathe"


def test_neighbour_whose_address_another_card_has_now_is_known_no_more(tmp_path: Path) -> None:
    (tmp_path / "machines.toml").write_text(BY_MAC % "lathe")
    with one_link() as (server_host, client_host), ExitStack() as stack:
        mac_of(client_host, "l0", MAC)
        serving = serve(tmp_path, f'[machines]\ninventory = "{tmp_path}/machines.toml"\n', bind="10.9.0.1:0")
        served = server_host.run(stack.enter_context, serving)
        assert served.ask(within=client_host)["machine"] == "lathe"
        mac_of(client_host, "l0", "52:54:00:65:43:21")
        server_host.ip("neigh", "flush", "all")
        assert served.ask(within=client_host)["machine"] == "52:54:00:65:43:21"


def test_client_of_a_dhcp_server_is_known(tmp_path: Path) -> None:
    for program in ("dnsmasq", "busybox"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            pytest.skip(f"{program} is not installed")
    (tmp_path / "machines.toml").write_text(BY_MAC % "lathe")
    leases, script = tmp_path / "leases", tmp_path / "bound"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && exec ip addr add "$ip/24" dev "$interface"\nexit 0\n')
    script.chmod(0o755)
    dhcp = (
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=r0"),
        *("--bind-interfaces", "--dhcp-range=10.9.0.100,10.9.0.150", f"--dhcp-leasefile={leases}", "--no-ping"),
        f"--pid-file={tmp_path}/pid",
    )
    machines = f'[machines]\ninventory = "{tmp_path}/machines.toml"\nleases = ["{leases}"]\nsources = ["leases"]\n'
    with one_link() as (server_host, client_host), ExitStack() as stack:
        mac_of(client_host, "l0", MAC)
        client_host.ip("addr", "flush", "dev", "l0")
        served = server_host.run(stack.enter_context, serve(tmp_path, machines, bind="10.9.0.1:0"))
        log = stack.enter_context((tmp_path / "dnsmasq.log").open("wb"))
        process = server_host.run(lambda: subprocess.Popen(dhcp, stdout=log, stderr=log))
        stack.callback(process.wait)
        stack.callback(process.terminate)
        ask = ("busybox", "udhcpc", "-i", "l0", "-n", "-q", "-f", "-t", "20", "-T", "1", "-s", str(script))
        done = client_host.run(lambda: subprocess.run(ask, capture_output=True, text=True, check=False, timeout=60))
        if "applet not found" in done.stderr:
            pytest.skip("this busybox has no udhcpc")
        assert done.returncode == 0, (done.stderr, (tmp_path / "dnsmasq.log").read_text())
        wait_for(lambda: served.ask(within=client_host).get("machine") == "lathe", "the lease", deadline_s=5)


# ---- who does not ask for it does not pay for it


def test_server_that_is_told_nothing_of_machines_knows_none_and_holds_nothing(tmp_path: Path) -> None:
    watch = MachineWatch(None)
    assert watch.machines is NO_MACHINES
    assert (watch.figures(), watch.busy_total) == ({}, 0)
    watch.close()
    with serve(tmp_path, "") as served:
        served.ask()
        sockets = Path("/proc/net/netlink").read_text(encoding="ascii")
        assert f" {served.server.process.pid} " not in sockets
        threads = Path(f"/proc/{served.server.process.pid}/task").iterdir()
        names = [(thread / "comm").read_text(encoding="ascii") for thread in threads]
        assert not any(name.startswith("tftp-machines") for name in names)
    (ended,) = served.lines("server stopped")
    assert "machines" not in ended
