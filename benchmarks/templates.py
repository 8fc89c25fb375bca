"""What a text costs that is made for who asks: rendering alone, one decision, and a request over the wire.

    python benchmarks/templates.py [--requests 20000] [--templates 50]

Prints one JSON object, in µs of CPU. `render` is a boot configuration of about 1 KB by its template; `decide` one
decision in this process, from the datagram to the plan; `request` the server's own CPU (user and system) for a request
that is sent, answered with one block and acknowledged, in a process of its own. Each is the least of five rounds.
`worst_ms` is what a template that spends all its fuel takes, by what its loop does.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.templates.engine import Template, TemplateFailure
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import build_ack, build_request
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Accepted

ROUNDS = 5
WINDOW = 64
PXE = """# {{ machine.name or "unknown" }} at {{ request.client }}
DEFAULT {% if machine.group == "install" %}install{% else %}local{% endif %}

PROMPT 0
TIMEOUT 50
{% for kind in ["install", "rescue"] %}
LABEL {{ kind }}
  KERNEL images/{{ machine.vars.get("release") or "13" }}/vmlinuz
  INITRD images/{{ machine.vars.get("release") or "13" }}/initrd.img
  APPEND console=tty0 console=ttyS0,115200n8 ip=dhcp url=http://{{ request.server }}/preseed/{{ mac_dashes }}.cfg hostname={{ machine.name or mac_dashes }} {{ kind }} BOOTIF=01-{{ mac_dashes }} interface=auto net.ifnames=0 nameserver=10.1.0.1 domain=rack.example quiet
{% endfor %}
LABEL local
  LOCALBOOT 0
# Made for {{ mac_dashes }}; do not edit. Whoever has questions finds the template beside the server's configuration.
"""  # noqa: E501
LOOPS = (
    "",
    "{{ i }} ",
    "{{ machine.name }}",
    "{{ machine.vars.a ~ request.name }}",
    "{% if machine.name == 'n' %}{% endif %}",
)
NAME = "pxelinux.cfg/01-52-54-00-00-00-07"
FACTS = {
    "machine": {"name": "node7", "group": "install", "vars": {"release": "13", "a": "b"}},
    "request": {"name": NAME, "client": "10.1.2.3", "server": "10.1.0.1"},
    "mac_dashes": "52-54-00-00-00-07",
}


def least_us(call: Callable[[], object], count: int) -> float:
    """The least of the rounds, each call's share."""
    rounds = []
    for _ in range(ROUNDS):
        began_ns = time.process_time_ns()
        for _ in range(count):
            call()
        rounds.append((time.process_time_ns() - began_ns) / count / 1000)
    return round(min(rounds), 2)


def worst_ms() -> dict[str, float]:
    found = {}
    for body in LOOPS:
        template = Template("", "t", {"t": f"{{% for i in range(99999) %}}{body}{{% endfor %}}"})
        began_ns = time.thread_time_ns()
        try:
            template.render(FACTS)
        except TemplateFailure:
            found[body or "nothing"] = round((time.thread_time_ns() - began_ns) / 1e6, 1)
    return found


class Asked:
    """A request as the engine has it."""

    transfer_id, local_address, peer = 1, None, ("127.0.0.1", 2000)

    def __init__(self, name: str) -> None:
        self.datagram = build_request(Opcode.RRQ, name)


def settings_of(folder: Path, count: int, templates: bool) -> dict[str, object]:
    entries = [
        {"match": f"other{number}/{{name}}-{{mac_dashes}}.cfg", "template": "pxe.j2"} for number in range(count - 1)
    ]
    entries.append({"match": "pxelinux.cfg/01-{mac_dashes}", "template": "pxe.j2"})
    base: dict[str, object] = {
        "root_dir": str(folder / "root"),
        "bind_addr": "127.0.0.1:0",
        "logging.level": "warning",
        "performance.platform.batch.enable_flows": False,
    }
    return base | ({"template_dir": str(folder), "templates": entries} if templates else {})


def decide_us(folder: Path, count: int, name: str, *, templates: bool) -> float:
    decider = FileDecider(override(Settings(), settings_of(folder, count, templates), source="benchmark"))
    asked = Asked(name)
    if templates and name == NAME:  # measured once, so that the event loop renders
        made = decider._generation.templates
        assert made is not None
        for entry in made._entries:
            entry.took_ns = 0

    def decide() -> None:
        verdict = decider.decide(asked)
        assert isinstance(verdict, Accepted), verdict
        verdict.discard()

    try:
        return least_us(decide, 2000)
    finally:
        decider.close()


def toml_of(value: object) -> str:
    return json.dumps(value)


def request_us(folder: Path, count: int, name: str, requests: int, *, templates: bool) -> float:
    flat = settings_of(folder, count, templates)
    config = folder / "c.toml"
    lines = [f"{key} = {toml_of(value)}" for key, value in flat.items() if key != "templates"]
    for entry in flat.get("templates", []):  # type: ignore[attr-defined]
        lines += ["[[templates]]", *(f"{key} = {toml_of(value)}" for key, value in entry.items())]
    config.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "snow_owl_tftp", "serve", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        host, _, port = process.stdout.readline().decode().split()[-1].rpartition(":")
        try:
            load((host, int(port)), name, 500)
            rounds = []
            for _ in range(ROUNDS):
                before_s = cpu_seconds(process.pid)
                load((host, int(port)), name, requests // ROUNDS)
                rounds.append((cpu_seconds(process.pid) - before_s) / (requests // ROUNDS) * 1e6)
        finally:
            process.terminate()
    return round(min(rounds), 1)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(server: tuple[str, int], name: str, requests: int) -> None:
    """Ask, take the one block and acknowledge it, `WINDOW` requests at a time from sockets of their own."""
    request = build_request(Opcode.RRQ, name, options=(("blksize", "1428"),))
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(WINDOW)]
    for one in sockets:
        one.settimeout(5)
    for _ in range(requests // WINDOW):
        for one in sockets:
            one.sendto(request, server)
        for one in sockets:
            datagram, sender = one.recvfrom(2048)
            assert datagram[:2] == b"\0\6", datagram
            one.sendto(build_ack(0), sender)
        for one in sockets:
            datagram, sender = one.recvfrom(2048)
            assert datagram[:4] == b"\0\3\0\1", datagram
            one.sendto(build_ack(1), sender)
    for one in sockets:
        one.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--templates", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = Template("", "t", {"t": PXE}).render(FACTS)
        (folder / "root/pxelinux.cfg").mkdir(parents=True)
        (folder / "root/file").write_bytes(text)
        (folder / "pxe.j2").write_text(PXE)
        template = Template("", "t", {"t": PXE})
        count, requests = arguments.templates, arguments.requests
        figures = {
            "text_bytes": len(text),
            "render_us": least_us(lambda: template.render(FACTS), 2000),
            "worst_ms": worst_ms(),
            "decide_us": {
                "file, no templates": decide_us(folder, count, "file", templates=False),
                f"file, beside {count} templates": decide_us(folder, count, "file", templates=True),
                "template": decide_us(folder, count, NAME, templates=True),
            },
            "request_us": {
                "file, no templates": request_us(folder, count, "file", requests, templates=False),
                f"file, beside {count} templates": request_us(folder, count, "file", requests, templates=True),
                "template": request_us(folder, count, NAME, requests, templates=True),
            },
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
