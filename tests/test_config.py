"""The configuration file: what it may say, and what is said to an operator who got it wrong."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from snow_owl_tftp.config import schema as config
from snow_owl_tftp.config.binds import parse_bind, parse_port_range
from snow_owl_tftp.config.check import without_effect
from snow_owl_tftp.config.load import load, override
from snow_owl_tftp.config.rules import MAX_RULES, Rule, problems_of_rules
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError, TftpError

ALL_KEYS = r"""
root_dir = "/srv/boot"
link_targets = ["/usr/lib/PXELINUX", "/usr/lib/syslinux"]
hidden = "serve"
bind_addr = ["192.0.2.1:69", "[::1]:6969"]
workers = 4
single_port = false
tid_ports = "50000-50063"
tid_sockets = 8
max_file_size_bytes = 5000000000
drain_timeout_s = 3
template_dir = "/etc/snow-owl/templates"
rewrite_file = "/etc/tftpd.map"
rewrite_max_steps = 100

[[rewrite]]
pattern = '^[a-z]:'
replacement = '/'
requests = "read"
ignore_case = true
every = true
last = true

[names]
case = "insensitive"
max_indexed = 1000
hidden = true
strip_root = false
encodings = ["latin-1", "cp437"]
cut = ["ff"]
siblings = ["*.efi"]
optional = ["*.lst", "pxelinux.cfg/*"]

[[templates]]
match = "pxelinux.cfg/01-{mac_dashes}"
template = "pxe.j2"

[[handlers]]
match = "inventory/**"
handler = "site_boot:answer"

[logging]
level = "debug"
format = "json"
file = "server.log"
audit_enabled = true
audit_file = "audit.json"

[options]
max_blksize_bytes = 1428
max_windowsize_blocks = 64
max_window_bytes = 1048576

[limits]
max_transfers = 10
max_transfers_per_client = 9
max_half_open = 8
max_half_open_per_client = 7
max_unproven_network_bytes = 33554432
max_pending_requests = 6
max_transfers_per_network = 5
max_half_open_per_network = 4
max_requests_per_s_per_client = 11
max_requests_per_s_per_network = 12
max_requests_per_s = 13
max_bytes_per_s_per_client = 1000000
max_bytes_per_s_per_network = 2000000
max_bytes_per_s = 3000000
max_unproven_bytes_per_s = 400000

[retransmit]
floor_ms = 20
ceiling_ms = 4000
initial_ms = 500
give_up_s = 60
half_open_give_up_s = 5
stalled_give_up_s = 600
half_open_max_datagrams = 2

[write_config]
enabled = true
allow_overwrite = true
allowed_patterns = ["backup/**"]
create_directories = true
file_mode = "0600"
on_existing = "version"
max_total_bytes = 1000000
fsync = false
on_upload = ["/usr/bin/true", "arg"]
on_upload_timeout_s = 5
on_upload_max_running = 2

[performance.platform.batch]
enable_recvmmsg = false
enable_sendmmsg = false
enable_gso = false
enable_flows = false
max_batch_size = 128
batch_timeout_us = 50
enable_adaptive_batching = true
adaptive_batch_threshold = 7

[performance.platform.socket]
recv_buffer_kb = 1024
send_buffer_kb = 2048

[performance.platform.file_io]
io_threads = 3
source_linger_s = 0

[machines]
sources = ["name", "leases"]
inventory = "machines.yaml"
leases = ["/var/lib/misc/dnsmasq.leases"]
name_patterns = ["config-{mac_plain}.txt"]
[[rules]]
clients = ["10.1.0.0/16", "fd00::/8", "192.0.2.7"]
macs = ["52:54:00:*"]
groups = ["switches"]
listen = ["10.1.0.1:69", "[fd00::1]:69", "10.1.0.1", ":69"]
paths = ["firmware/**"]
trust = "address"
allow = ["read", "write", "overwrite"]
roots = ["machines/{mac}", "common"]
require = "world_readable"
hidden = true

[rules.options]
max_blksize_bytes = 1428
max_windowsize_blocks = 32
refuse = ["tsize"]
rollover = 1
patience_ms = 2000

[rules.limits]
requests_per_s = 20
bytes_per_s = 50_000_000
transfers = 4
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "owl.toml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    places = re.compile(re.escape(str(path)) + r"(:\d+)?: ")
    assert all(places.match(line) for line in lines)
    return "\n".join(places.sub("", line, count=1) for line in lines)


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "")) == Settings()


def test_the_defaults_pass_their_own_check() -> None:
    assert override(Settings(), {}) == Settings()


def test_every_key_can_be_set_and_none_keeps_its_default(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ALL_KEYS))
    default, changed = leaves(msgspec.to_builtins(Settings())), leaves(msgspec.to_builtins(settings))
    assert changed.keys() == default.keys()
    assert [key for key in default if default[key] == changed[key]] == ["single_port"]  # excludes tid_ports


def test_every_key_of_a_rewrite_can_be_set(tmp_path: Path) -> None:
    (rewrite,) = load(write(tmp_path, ALL_KEYS)).rewrite
    default, changed = (msgspec.to_builtins(one) for one in (config.RewriteSettings(pattern="x"), rewrite))
    assert [key for key in default if default[key] == changed[key]] == []


def test_single_port_can_be_set(tmp_path: Path) -> None:
    assert load(write(tmp_path, "single_port = true")).single_port is True


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        Settings().workers = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("tid_sockets", 1, 64),
        ("options.max_blksize_bytes", 8, 65464),
        ("options.max_windowsize_blocks", 1, 65535),
        ("options.max_window_bytes", 512, 64 * 1024 * 1024),
        ("performance.platform.batch.max_batch_size", 1, 1024),
        ("performance.platform.batch.batch_timeout_us", 0, 10_000),
        ("performance.platform.file_io.io_threads", 1, 64),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_the_range(key: str, low: int, high: int) -> None:
    for inside in (low, high):
        assert override(Settings(), {key: inside}) is not None
    for outside in (low - 1, high + 1):
        with pytest.raises(ConfigError) as caught:
            override(Settings(), {key: outside})
        assert str(caught.value) == f"command line: {key}: expected {low}..{high}, got {outside}"


@pytest.fixture
def five_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    config._usable_cores.cache_clear()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 3, 5, 7})
    yield
    config._usable_cores.cache_clear()


def test_workers_are_one_unless_more_are_asked_for(five_cores: None) -> None:
    assert [Settings(workers=n).worker_count for n in (1, 64)] == [1, 64]
    assert Settings().worker_count == 1


def test_auto_workers_are_the_cores_that_may_be_used(five_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = override(Settings(), {"workers": "auto"})
    assert settings.worker_count == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert settings.worker_count == 5, "sockets that are open are for so many"


def test_auto_workers_are_no_more_than_the_engine_takes(five_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(192)))
    assert Settings(workers="auto").worker_count == 64


def test_auto_workers_need_a_port_each(five_cores: None) -> None:
    with pytest.raises(ConfigError, match="every worker needs one; widen it to 5 ports"):
        override(Settings(), {"workers": "auto", "tid_ports": "5000-5003"})


def test_every_number_has_a_range() -> None:
    for key, value in leaves(msgspec.to_builtins(Settings())).items():
        if type(value) is int:
            with pytest.raises(ConfigError, match=re.escape(key)):
                override(Settings(), {key: -1})
            with pytest.raises(ConfigError, match=re.escape(key)):
                override(Settings(), {key: 2**63})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers = '4'", 'workers: expected 1..64 or "auto", got "4"'),
        ("workers = 1.5", 'workers: expected 1..64 or "auto", got 1.5'),
        ("workers = true", 'workers: expected 1..64 or "auto", got true'),
        ("workers = 0", 'workers: expected 1..64 or "auto", got 0'),
        ("workers = 65", 'workers: expected 1..64 or "auto", got 65'),
        ("root_dir = 5", "root_dir: expected a text, got 5"),
        ("single_port = 'yes'", 'single_port: expected true or false, got "yes"'),
        ("bind_addr = 69", "bind_addr: expected a text or a list of texts, got 69"),
        ("logging = 3", "logging: expected a table, got 3"),
        (
            "[logging]\nlevel = 'loud'",
            'logging.level: expected one of "debug", "info", "warning", "error", got "loud"',
        ),
        (
            "[machines]\nsources = 5",
            "machines.sources: expected a list of texts, each one of "
            + ", ".join(f'"{name}"' for name in ("inventory", "leases", "neighbours", "name"))
            + ", got 5",
        ),
        ("[write_config]\nallowed_patterns = '*'", 'write_config.allowed_patterns: expected a list of texts, got "*"'),
        (
            "[write_config]\nfile_mode = 644",
            'write_config.file_mode: expected permissions 0o000..0o777, such as 0o644 or "0644", got 644',
        ),
        (
            "[write_config]\nfile_mode = '4755'",
            'write_config.file_mode: expected permissions 0o000..0o777, such as 0o644 or "0644", got "4755"',
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker = 4", "worker: unknown key; did you mean workers?"),
        ("[logging]\nlevle = 'info'", "logging.levle: unknown key; did you mean logging.level?"),
        (
            "recv_buffer_kb = 8",
            "recv_buffer_kb: unknown key; did you mean performance.platform.socket.recv_buffer_kb?",
        ),
        ("[write-config]\nenabled = true", "write-config: unknown key; did you mean write_config?"),
        ("qqq = 1", "qqq: unknown key; remove it"),
    ],
)
def test_an_unknown_key_is_refused_and_the_closest_named(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == message


# ---- files of the earlier Rust server


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("[multicast]\nenabled = true", "multicast: this version serves no multicast; set multicast.enabled = false"),
        ("multicast = true", "multicast: this version serves no multicast"),
        ("[web]\nbind_addr = '0.0.0.0:443'", "web: this version has no web interface; remove the table"),
    ],
)
def test_a_key_of_the_earlier_server_that_would_be_missed_is_refused_with_its_replacement(
    tmp_path: Path, text: str, remedy: str
) -> None:
    assert refusal(tmp_path, text).startswith(remedy)


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("[multicast]\nenabled = false\nmulticast_addr = '224.0.1.1'", ["multicast"]),
        ("[multicast]\nmax_clients = 10", ["multicast"]),
        ("[performance]\ndefault_block_size = 8192", ["performance.default_block_size (512 unless"]),
        ("[performance]\ndefault_windowsize = 8", ["performance.default_windowsize (the client asks"]),
        (
            "[performance]\nbuffer_pool_size = 8\nstreaming_threshold = 1",
            ["performance.buffer_pool_size", "performance."],
        ),
        ("[performance.platform.socket]\nreuse_port = true", ["performance.platform.socket.reuse_port (workers"]),
        ("[performance.platform.zero_copy]\nuse_sendfile = true", ["performance.platform.zero_copy"]),
        (
            "[performance.platform.worker_pool]\nenabled = true\nworker_count = 4",
            ["performance.platform.worker_pool (workers = N instead)"],
        ),
        ("[performance.platform.file_io]\nuse_willneed_hint = true\nio_threads = 4", ["performance.platform.file_io."]),
        ("workers = 1", []),
    ],
)
def test_a_key_of_the_earlier_server_that_changes_nothing_is_dropped_and_told(
    tmp_path: Path, text: str, dropped: list[str]
) -> None:
    told: list[list[str]] = []
    assert load(write(tmp_path, text), told.append) == Settings()
    assert [len(keys) for keys in told] == [len(dropped)]
    assert all(key.startswith(start) for key, start in zip(told[0], dropped, strict=True))


@pytest.mark.parametrize("text", ["[performance]\nbuffer_pool = 8", "[performance.platform.file_io]\nuse_hint = true"])
def test_a_misspelt_key_beside_those_is_still_refused(tmp_path: Path, text: str) -> None:
    assert "unknown key" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("theirs", "ours", "is_told"),
    [
        ("warn", "warning", False),
        ("info", "info", False),
        ("WARN", "warning", False),
        ("trace", "debug", True),
        ("off", "error", True),
        ("usg_tftp=debug", "debug", True),
        ("warn,usg_tftp=info", "info", True),
        ("info, hyper=debug", "info", True),
        ("hyper=error", "error", True),
    ],
)
def test_a_level_of_the_earlier_server_is_read_as_the_nearest_of_ours(
    tmp_path: Path, theirs: str, ours: str, is_told: bool
) -> None:
    told: list[list[str]] = []
    assert load(write(tmp_path, f"[logging]\nlevel = '{theirs}'"), told.append).logging.level == ours
    assert told == [[f'logging.level = "{theirs}" (read as "{ours}")'] if is_told else []]


@pytest.mark.parametrize("level", ["loud", "usg_tftp=loud", "", "usg_tftp", "[span]=info,x"])
def test_a_level_of_nobody_is_refused(tmp_path: Path, level: str) -> None:
    assert refusal(tmp_path, f"[logging]\nlevel = '{level}'").startswith('logging.level: expected one of "debug"')


def test_what_is_dropped_is_no_key_of_ours() -> None:
    from snow_owl_tftp.config.legacy import _HINTS, _REFUSED
    from snow_owl_tftp.config.paths import key_paths

    assert not {*_HINTS, *_REFUSED} & set(key_paths(Settings))


def test_audit_events_go_to_the_log_where_no_file_of_their_own_is_named() -> None:
    logging = {"logging.audit_enabled": True, "logging.file": "log"}
    assert override(Settings(), logging).logging.audit_path == "log"
    assert override(Settings(), {**logging, "logging.audit_file": "audit"}).logging.audit_path == "audit"
    assert override(Settings(), {"logging.file": "log"}).logging.audit_path == ""


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    assert refusal(tmp_path, "workers = 0\n[options]\nmax_blksize_bytes = 7\nqqq = 1").splitlines() == [
        'workers: expected 1..64 or "auto", got 0',
        "options.max_blksize_bytes: expected 8..65464, got 7",
        "options.qqq: unknown key; remove it",
    ]


def test_a_long_bad_value_is_cut_short(tmp_path: Path) -> None:
    message = refusal(tmp_path, f"workers = '{'x' * 5000}'")
    assert message.endswith("...")
    assert len(message) < 120


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bind_addr = []", "bind_addr: the list is empty"),
        ("bind_addr = ['0.0.0.0:69', 'tftp:69']", "bind_addr: expected a numeric address"),
        ("tid_ports = '9-1'", "tid_ports: expected two ports"),
        ("tid_ports = '5000-5100'\nsingle_port = true", "tid_ports: has no effect with single_port"),
        ("tid_ports = '5000-5002'\nworkers = 4", "tid_ports: every worker needs one; widen it to 4 ports"),
        ("[retransmit]\nfloor_ms = 2000", "retransmit: expected floor_ms <= initial_ms <= ceiling_ms"),
        ("[retransmit]\ninitial_ms = 9000", "retransmit: expected floor_ms <= initial_ms <= ceiling_ms"),
        ("[logging]\naudit_enabled = true", "logging.audit_file: audit_enabled = true needs it"),
        ("[names]\ncut = ['nul']", 'names.cut: expected a list of "ff", "blanks", "controls", got "nul"'),
        ("[names]\nencodings = ['big5']", 'names.encodings: "big5" does not extend ASCII by one byte a character'),
        (f"[names]\nencodings = {['cp437'] * 5}", "names.encodings: expected at most 4, got 5"),
        ("[machines]\nsources = ['name', 'name']", 'machines.sources: "name" stands there twice; remove one of them'),
        ("[machines]\nleases = ['a', 'b', 'a']", 'machines.leases: "a" stands there twice; remove one of them'),
        ("[machines]\nleases = ['']", "machines.leases: a path is empty; remove it"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("overrides", "idle"),
    [
        ({}, []),
        ({"logging.audit_file": "a"}, ["logging.audit_file"]),
        ({"logging.audit_file": "a", "logging.audit_enabled": True}, []),
        ({"tid_sockets": 8}, []),
        ({"single_port": True}, []),
        ({"tid_sockets": 8, "single_port": True}, ["tid_sockets"]),
        ({"names.max_indexed": 8}, ["names.max_indexed"]),
        ({"names.max_indexed": 8, "names.case": "insensitive"}, []),
        ({"names.case": "insensitive", "rules": [{"roots": ["a", "./b/{mac}", "/srv/tftp/c", "/srv/tftp"]}]}, []),
        ({"names.case": "insensitive", "rules": [{"roots": ["/srv/tftpboot"]}]}, ["names.case"]),
        ({"names.case": "insensitive", "rules": [{}, {"roots": ["a", "/srv/{mac}"]}]}, ["names.case"]),
        ({"names.case": "insensitive", "rules": [{"roots": [".images/{mac}"]}]}, ["names.case"]),
        ({"names.case": "insensitive", "names.hidden": True, "rules": [{"roots": [".images"]}]}, []),
        ({"names.case": "insensitive", "rules": [{"roots": [".images"]}, {"hidden": True}]}, []),
        ({"names.case": "lower", "rules": [{"roots": ["/srv/images"]}]}, []),
        ({"machines.leases": ["a"]}, []),
        ({"machines.leases": ["a"], "machines.sources": ["name"]}, ["machines.leases"]),
        ({"machines.name_patterns": ["{mac}"]}, []),
        ({"machines.name_patterns": ["{mac}"], "machines.sources": []}, ["machines.name_patterns"]),
        ({"machines.inventory": "a.toml", "machines.sources": ["leases"]}, []),
    ],
)
def test_settings_that_others_switch_off_are_named(overrides: dict[str, object], idle: list[str]) -> None:
    assert list(without_effect(override(Settings(), overrides))) == idle


def test_a_file_that_is_no_toml_is_refused_with_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, "workers = 1\nworkers = = 2\n")
    assert message.startswith("not TOML: ")
    assert "line 2" in message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "owl.toml"
    path.write_bytes(b"\xff\xfe = 1")
    with pytest.raises(ConfigError, match=re.escape(f"{path}: not TOML")):
        load(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load(path)


def test_a_config_error_is_a_value_error_of_ours() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, TftpError)


def test_flags_lie_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ALL_KEYS))
    changed = override(settings, {"workers": 2, "write_config.enabled": False, "root_dir": None})
    assert (changed.workers, changed.write_config.enabled, changed.root_dir) == (2, False, "/srv/boot")
    assert changed.write_config.allowed_patterns == ("backup/**",)
    assert (settings.workers, settings.write_config.enabled) == (4, True)


@pytest.mark.parametrize("key", ["nonsense", "workers.count", "logging.nonsense", "no.such.table"])
def test_a_flag_that_names_no_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^test: {re.escape(key.split('.')[0])}"):
        override(Settings(), {key: 1}, source="test")


def test_a_flag_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ALL_KEYS))
    with pytest.raises(ConfigError, match="single_port"):
        override(settings, {"single_port": True})


@pytest.mark.parametrize(("mode", "bits"), [("0o640", 0o640), ("'0640'", 0o640), ("'640'", 0o640), ("'0o640'", 0o640)])
def test_file_mode_is_octal_however_written(tmp_path: Path, mode: str, bits: int) -> None:
    assert load(write(tmp_path, f"[write_config]\nfile_mode = {mode}")).write_config.file_mode_bits == bits


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:69", ("0.0.0.0", 69)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("192.0.2.7:65535", ("192.0.2.7", 65535)),
        ("[::]:69", ("::", 69)),
        (":69", ("::", 69)),
        ("69", ("::", 69)),
        (":0", ("::", 0)),
        ("[2001:db8::1]:6969", ("2001:db8::1", 6969)),
        ("[fe80::1%eth0]:69", ("fe80::1%eth0", 69)),
    ],
)
def test_an_address_to_bind_is_split(text: str, address: tuple[str, int]) -> None:
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ADDR:PORT"),
        (":", "ADDR:PORT"),
        ("tftp", "ADDR:PORT"),
        (":tftp", "port 0..65535"),
        ("65536", "port 0..65535"),
        ("0.0.0.0", "ADDR:PORT"),
        ("0.0.0.0:", "ADDR:PORT"),
        ("[::1]", "ADDR:PORT"),
        ("::1:69", "brackets"),
        ("[::1:69", "brackets"),
        ("fe80::1%eth0:69", "brackets"),
        ("[]:69", "numeric address"),
        ("[192.0.2.1]:69", "numeric address"),
        ("localhost:69", "numeric address"),
        ("0.0.0.0\0:69", "numeric address"),
        ("256.0.0.1:69", "numeric address"),
        ("[fe80::1%]:69", "zone"),
        ("127.0.0.1%lo:69", "zone"),
        ("0.0.0.0:65536", "port 0..65535"),
        ("0.0.0.0:-1", "port 0..65535"),
        ("0.0.0.0:tftp", "port 0..65535"),
        ("0.0.0.0:٦٩", "port 0..65535"),
    ],
)
def test_what_is_no_address_to_bind_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bind(text)
    assert why in str(caught.value)
    assert f'"{text}"' in str(caught.value)


def test_bind_addresses_are_one_or_many() -> None:
    assert Settings(bind_addr="[::]:69").bind_addresses == (("::", 69),)
    assert Settings(bind_addr=("0.0.0.0:69", "[::1]:70")).bind_addresses == (("0.0.0.0", 69), ("::1", 70))


@pytest.mark.parametrize(("text", "ports"), [("50000-50063", (50000, 50063)), ("1-65535", (1, 65535)), ("7-7", (7, 7))])
def test_a_port_range_is_split(text: str, ports: tuple[int, int]) -> None:
    assert parse_port_range(text) == ports
    assert Settings(tid_ports=text).tid_port_range == ports


@pytest.mark.parametrize("text", ["", "-", "5", "5-", "-5", "0-5", "5-4", "1-65536", "a-b", "1-2-3", "1 - 2", "٦-٩"])
def test_what_is_no_port_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'"{text}"')):
        parse_port_range(text)


def test_without_tid_ports_the_kernel_chooses() -> None:
    assert Settings().tid_port_range is None


def test_every_key_of_a_rule_can_be_set_and_none_keeps_its_default(tmp_path: Path) -> None:
    rule = msgspec.to_builtins(load(write(tmp_path, ALL_KEYS)).rules[0])
    default = leaves(msgspec.to_builtins(Rule()))
    assert default.keys() == leaves(rule).keys()
    assert [key for key, value in leaves(rule).items() if value == default[key]] == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('clinets = ["10.0.0.0/8"]', "rules[1].clinets: unknown key; did you mean rules[].clients?"),
        ('clients = ["10.0.0.1/8"]', 'rules[1].clients: "10.0.0.1/8" has bits behind its prefix; write "10.0.0.0/8"'),
        ('clients = ["host"]', "rules[1].clients: expected an address or a prefix"),
        ('clients = ["::ffff:10.0.0.0/104"]', "rules[1].clients: "),
        ('macs = ["nic"]', "rules[1].macs: expected a MAC or a glob of one"),
        ('groups = [""]', "rules[1].groups: expected names, got an empty one"),
        ('listen = ["eth0"]', "rules[1].listen: "),
        ('listen = ["10.0.0.1:66000"]', "rules[1].listen: expected a port 0..65535"),
        (
            'allow = ["raed"]',
            'rules[1].allow: expected a list of texts, each one of "read", "write", "overwrite" or "ignore"',
        ),
        ('allow = ["overwrite"]', 'rules[1].allow: "overwrite" is about files that are written; add "write"'),
        ('trust = "name"', 'rules[1].trust: expected one of "any", "address"'),
        ('require = "mine"', "rules[1].require: expected one of"),
        ("options = { rollover = 2 }", "rules[1].options.rollover: expected 0..1"),
        ("options = { patience_ms = 5 }", "rules[1].options.patience_ms: expected 10..255000"),
        ('options = { refuse = ["foo"] }', "rules[1].options.refuse: expected a list of texts, each one of"),
        ("limits = { requests_per_s = 0 }", "rules[1].limits.requests_per_s: expected 1..10000000000, got 0"),
        ("limits = { bytes_per_s = -5 }", "rules[1].limits.bytes_per_s: expected 1..10000000000, got -5"),
        ('limits = { transfers = "4" }', 'rules[1].limits.transfers: expected 1..10000000, got "4"'),
        ("limits = { transfer = 4 }", "rules[1].limits.transfer: unknown key; did you mean rules[].limits.transfers?"),
        ("limits = 20", "rules[1].limits: expected a table, got 20"),
        ("allow = []\nlimits = { transfers = 4 }", "rules[1].limits: the rule allows nothing that they could limit"),
        ('allow = "ignore"\nlimits.transfers = 4', "rules[1].limits: the rule allows nothing that they could limit"),
        ("roots = [" + '"r",' * 17 + "]", "rules[1].roots: 17 of them; 16 is the most"),
    ],
)
def test_bad_rule_names_its_number_and_key(tmp_path: Path, rule: str, expected: str) -> None:
    assert refusal(tmp_path, f"[[rules]]\n{rule}\n").startswith(expected)


def test_rules_are_a_list_of_tables(tmp_path: Path) -> None:
    assert refusal(tmp_path, 'rules = ["x"]').startswith("rules: expected tables, each [[rules]], got ")
    assert refusal(tmp_path, "[[rules]]\nallow = []\n[[rules]]\nmac = []").startswith("rules[2].mac: unknown key")


def test_rules_have_a_bound() -> None:
    assert list(problems_of_rules((Rule(),) * (MAX_RULES + 1))) == ["rules: 10001 of them; 10000 is the most"]
    assert list(problems_of_rules((Rule(),) * MAX_RULES)) == []
