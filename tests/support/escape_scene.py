r"""A root full of traps, secrets beside it, and a configuration that uses every way to a file at once.

    base/root        root_dir: files, links out of it by every way there is, directories that variables choose
    base/place       in link_targets        base/absolute    a root of rules by its absolute path
    base/outside, base/etc, base/rootx, base/secret          what nobody may be sent, or change
    base/own         configuration, inventory, lease files, map file, templates, a module with a handler

May know: how settings are written. Must not: know what is asked.
Invariants: every file inside holds b"inside", what is hidden b"HIDDEN", and what is outside SECRET, of a size that no
other file has; so does the environment of the server.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ServerProcess, serve_command, wait_for

__all__ = ["FORBIDDEN", "HOSTILE", "IDENTITIES", "SECRET", "Scene", "make_scene", "serve_scene"]

SECRET = b"Of this nobody may be sent a byte: 7f3a91c4-OUTSIDE." * 9
FORBIDDEN = (b"7f3a91c4", b"HIDDEN", b"root:x:0", b"%d" % len(SECRET))
"""No datagram of the server may hold these, the size of a secret (tsize) included."""
HOSTILE = (
    *(
        "..",
        ".",
        "../outside",
        "../../outside",
        "/etc",
        "{base}/outside",
        "..\\outside",
        "..\\..\\outside",
        "Out",
        "up",
    ),
    *("good/../../../outside", "good/..", ".hidden", ".git", " ", "\x01..", "..\n", "%2e%2e", "\u2025", "\uff0e\uff0e"),
    *("A" * 300, "\u00e9" * 200, "~root", "..;", "*", "{mac}", "$(id)", "leak", "climb", "\x85..", "\u202e.."),
)
"""What an inventory may say of a machine in its variables: for roots, for templates."""
LEASED = (b"..", b"../../outside", b"x\xa0y", b"{base}/outside", b"lathe;rm", b"A" * 300, b"\xff\xfe", b"*")
"""Host names that clients of DHCP servers call themselves by."""
OUT_OF_ROOTS: Mapping[str, str] = {
    "Out": "{base}/outside",
    "up": "..",
    "climb": "../../../../../../../../..{base}",
    "leak": "{base}/outside/secret",
    "leak.efi": "../outside/secret",
    "passwd": "/etc/passwd",
    "Proc": "/proc/self",
    "Cwd": "/proc/self/cwd",
    "Fds": "/proc/self/fd",
    "Dev": "/dev",
    "circle": "circle",
    "chain": "chain1",
    "chain1": "Loop/chain2",
    "chain2": "{base}/place/../outside/secret",
    "Loop": ".",
    "nowhere-else": "{base}/rootx/secret",
}
IDENTITIES: Mapping[str, tuple[str, ...]] = {
    # First three octets of the clients, by whom a rule knows them: the roots that it gives them.
    "127.0.1": (
        *("machines/{mac}", "machines/{mac_dashes}", "by/{dir}", "by/{dir}/{other}", "names/{name}", "groups/{group}"),
        *("serials/{serial}", "uuids/{uuid}", "addresses/{address}", "hex/{address_hex}", "servers/{server_address}"),
        *("{base}/absolute/{dir}", "common"),
    ),
    "127.0.2": ("{dir}",),
    "127.0.3": ("{base}/absolute/{dir}",),
    "127.0.4": ("by/x{dir}", "by/{dir}.d", "by/{dir}{other}", "{dir}/{other}", "{base}/absolute/x{dir}"),
    "127.0.5": ("common", "."),
    "127.0.6": ("machines/{mac}", "names/{name}", "common"),
    "127.0.7": (),  # no rule: the root itself
    "127.0.8": ("way/{dir}",),  # a link that leads out, whatever follows
}
REWRITES = r"""
j ^N/ nest
j ^P/ decode
r ^U/(.*)$ \U\1
r ^L/(.*)$ \L\1
r ^D/(.*)$ ../\1
r ^A/(.*)$ /\1
r ^I/ \i/
r ^X/ addresses/\x/
r ^T/([^/]*)(/?)(.*)$ \9\1\2\8\3
rE ^E/ ../../
rE ^E/ Out/
rE ^E/ Loop/
r ^E/ common/
j .* end
:nest
r ^N/
rgg \.\./
j .* end
:decode
r ^P/
rgg %25 %
rgg %2[eE] .
rgg %2[fF] /
rgg %5[cC] \\
:end
"""
HANDLER = """
from pathlib import Path
from snow_owl_tftp import ReadRequest, Response

async def answer(request: ReadRequest) -> Response:
    return Response(request.under({root!r}))
"""
CONFIG = """
root_dir = "{base}/root"
link_targets = ["{base}/place"]
rewrite_file = "{base}/own/map"
template_dir = "{base}/own/templates"
workers = {workers}

[names]
case = "insensitive"
strip_root = true
encodings = ["latin-1", "cp437", "koi8-r"]
siblings = ["*"]
optional = ["*.lst", "secret", "**/secret"]

[machines]
inventory = "{base}/own/machines.json"
leases = ["{base}/own/dnsmasq.leases", "{base}/own/kea.csv", "{base}/own/dhcpd.leases"]
name_patterns = ["**/01-{{mac_dashes}}", "{{mac}}/**", "{{serial}}/**", "{{serial}}", "**/{{mac_plain}}-boot.log"]

[[rewrite]]
pattern = '^Z/(.*)$'
replacement = '..\\\\\\1'

[[templates]]
match = "made/{{what}}"
template = "made.j2"

[[handlers]]
match = "h/**"
handler = "escape_handler:answer"

[write_config]
enabled = true
allowed_patterns = ["**"]
create_directories = true
on_existing = "{on_existing}"
fsync = false
"""
TEMPLATE = """inside {{ what }} {{ request.name }} {{ machine.name or "" }}
{% for key in ["dir", "other"] %}{{ machine.vars.get(key) or "" }}
{% include (machine.vars.get(key) or "none") ignore missing %}
{% include ((machine.vars.get(key) or "none") ~ "/secret") ignore missing %}
{% endfor %}{% include what ignore missing %}
"""


@dataclass
class Scene:
    """What was made.

    Attributes:
        outside: What nobody may touch.
        clients: Addresses that ask, each with a name of who that is.
    """

    base: Path
    outside: tuple[Path, ...]
    clients: Mapping[str, str]

    @property
    def root(self) -> Path:
        return self.base / "root"


def make_scene(base: Path, *, on_existing: str = "replace", workers: int = 1) -> Scene:
    inside = ("file", "Sub/File", "Sub/Deep/Kernel", "é", "K", "...", "Sub/..x", "common/file", "common/sub/x")
    chosen = ("machines/52:54:00:00:00:01", "by/good", "names/lathe", "groups/shop", "addresses/127.0.1.1")
    rooms = ["", "common/", *(f"{room}/" for room in (*chosen, "serials/8d1f", "by/A", "{dir}", "h"))]
    _write(base / "root", (*inside, *(f"{room}file" for room in rooms)), b"inside")
    _write(base, ("place/x", "absolute/good/file", "absolute/good/deep/file"), b"inside")
    _write(base / "root", (".git/config", "Sub/.hidden", ".x", "common/.hidden"), b"HIDDEN")
    outside = ("outside/secret", "outside/file", "outside/x", "outside/etc/passwd", "etc/passwd", "rootx/secret")
    _write(base, (*outside, "secret", "outside/SECRET", "outside/127.0.1.1/file", "outside/good/file"), SECRET)
    _write(base, ("outside/made.j2",), SECRET)
    for room in (*rooms, "Sub"):
        _set_traps(base / "root" / room, base)
    _set_traps(base / "absolute", base)
    (base / "root/way").symlink_to("../outside")
    for room in ("machines", "by", "names", "groups", "serials", "uuids", "hex", "servers", "addresses"):
        (base / "root" / room).mkdir(exist_ok=True)
        _link_out(base / "root" / room, base, ("Out", "up", "leak", "climb"))
    (base / "place/out").symlink_to("../outside")
    (base / "place/up").symlink_to("..")
    clients = _write_own(base, on_existing=on_existing, workers=workers)
    places = (base / "outside", base / "etc", base / "rootx", base / "secret")
    return Scene(base, places, clients)


def _write(top: Path, names: tuple[str, ...], content: bytes) -> None:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + (b" " + name.encode() if content == b"inside" else b""))


def _link_out(folder: Path, base: Path, names: tuple[str, ...] = tuple(OUT_OF_ROOTS)) -> None:
    for name in names:
        (folder / name).symlink_to(OUT_OF_ROOTS[name].format(base=base))


def _set_traps(folder: Path, base: Path) -> None:
    _link_out(folder, base)
    (folder / "In").symlink_to(base / "root/Sub")
    (folder / "place").symlink_to(base / "place")
    (folder / "back").symlink_to(base / "root")
    for number in range(45):
        (folder / f"long{number}").symlink_to(f"long{number + 1}")
    (folder / "long45").symlink_to(base / "outside/secret")
    (folder / "long-chain").symlink_to("long0")
    os.mkfifo(folder / "fifo")
    # A socket's address has 107 bytes at most.
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)


def _write_own(base: Path, **chosen: object) -> Mapping[str, str]:
    own = base / "own"
    (own / "templates").mkdir(parents=True)
    (own / "templates/made.j2").write_text(TEMPLATE)
    (own / "templates/leak.j2").symlink_to(base / "outside/made.j2")
    (own / "escape_handler.py").write_text(HANDLER.format(root=str(base / "root")))
    (own / "map").write_text(REWRITES)
    clients: dict[str, str] = {}
    machines: list[dict[str, object]] = [
        {"mac": "52:54:00:00:00:01", "name": "lathe", "group": "shop", "serial": "8d1f", "vars": {"dir": "good"}}
    ]
    for network in IDENTITIES:
        clients[f"{network}.1"] = "nobody"
        for number, value in enumerate(("good", *HOSTILE), 2):
            clients[f"{network}.{number}"] = f"a machine whose variables are {ascii(value)[:40]}"
            value = value.format(base=base, mac="{mac}")
            machines.append({"address": f"{network}.{number}", "vars": {"dir": value, "other": value[::-1]}})
    for number, name in enumerate(("Out", "up", "leak", "climb"), 200):
        clients[f"127.0.1.{number}"] = f"a machine called {name}"
        machines.append({"address": f"127.0.1.{number}", "serial": name, "name": name, "group": name})
    clients |= _write_leases(own, base)
    (own / "machines.json").write_text(json.dumps({"machine": machines}))
    rules = [
        f'[[rules]]\nclients = ["{network}.0/24"]\nallow = ["read", "write", "overwrite"]\n'
        f"roots = {json.dumps(roots)}\n"
        for network, roots in IDENTITIES.items()
        if roots
    ]
    text = CONFIG.format(base=base, **chosen) + "".join(rules).replace("{base}", str(base))
    (own / "owl.toml").write_text(text)
    return clients


def _write_leases(own: Path, base: Path) -> Mapping[str, str]:
    """What a DHCP server writes that believes its clients: MACs and host names of all kinds."""
    clients: dict[str, str] = {}
    dnsmasq, kea = [], ["address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state"]
    macs = ["52:54:00:00:00:01", "..", "../../outside", "Out", "52:54:00:00:00:01/../..", "ff:ff:ff:ff:ff:ff"]
    names = [name.replace(b"{base}", bytes(base)).decode("latin-1") for name in LEASED]
    number = 100
    for mac in macs:
        for name in names:
            number += 1
            clients[f"127.0.6.{number}"] = f"leased to {mac!a} as {ascii(name)[:40]}"
            dnsmasq.append(f"0 {mac} 127.0.6.{number} {name} {name}")
            kea.append(f"127.0.6.{number + 60},{mac},,3600,4000000000,1,0,0,{name},0")
            clients[f"127.0.6.{number + 60}"] = f"leased by Kea to {mac!a} as {ascii(name)[:40]}"
    dnsmasq += ["\xb2 52:54:00:00:00:01 127.0.6.250 x x", "9" * 5000 + " .. 127.0.6.251 .. ..", "../../x"]
    block = (
        "lease 127.0.6.252 {\n  ends never;\n  binding state active;\n"
        '  hardware ethernet %s;\n  client-hostname "%s";\n}\n'
    )
    isc = (
        "".join(block % (mac, name) for mac in macs for name in names)
        + "lease ../../outside {\n}\nlease 127.0.6.253 {\n"
    )
    for name, text in (("dnsmasq.leases", dnsmasq), ("kea.csv", kea), ("dhcpd.leases", [isc])):
        (own / name).write_bytes("\n".join([*text, ""]).encode("latin-1"))
    return clients


@contextmanager
def serve_scene(scene: Scene, *flags: str) -> Iterator[ServerProcess]:
    own = scene.base / "own"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{own}:{os.environ.get('PYTHONPATH', '')}",
        "SNOW_OWL_SECRET": SECRET.decode(),
    }
    arguments = ("--config", str(own / "owl.toml"), "--log-format", "json", *flags)
    with serve_command(None, *arguments, stderr_path=own / "stderr", env=environment) as server:
        wait_for(lambda: "names indexed" in server.log, "the index of names")
        yield server
