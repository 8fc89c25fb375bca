"""Configurations of other servers: what each of their words becomes, and what is said about the rest."""

from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.cli import main
from snow_owl_tftp.config.importing.carried import Carried
from snow_owl_tftp.config.importing.forms import FORMS, carry, form_of
from snow_owl_tftp.config.importing.hpa import carry_hpa
from snow_owl_tftp.config.importing.pcre import map_lines
from snow_owl_tftp.config.load import load
from snow_owl_tftp.errors import ConfigError

WRITES = {"enabled": True, "allowed_patterns": ["**"], "on_existing": "replace_writable"}


def hpa(*arguments: str) -> Carried:
    carried = Carried()
    carry_hpa(arguments, "unit:3", carried)
    carried.checked()
    return carried


def test_debian_default_is_the_same_server() -> None:
    assert hpa("--listen", "--address", ":69", "--secure", "/srv/tftp").tree == {
        "root_dir": "/srv/tftp",
        "bind_addr": ":69",
        "rules": [{"require": "world_readable"}],
        "write_config": WRITES,
    }


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["-4"], "bind_addr", "0.0.0.0:69"),
        (["-a", "10.0.0.1"], "bind_addr", "10.0.0.1:69"),
        (["-a", "10.0.0.1:6969", "-a", "[::1]:70"], "bind_addr", ["10.0.0.1:6969", "[::1]:70"]),
        (["--port", "6969"], "bind_addr", ":6969"),
        (["-m", "/etc/tftpd.map"], "rewrite_file", "/etc/tftpd.map"),
        (["--map-steps=100"], "rewrite_max_steps", 100),
        (["-B", "1428"], "options.max_blksize_bytes", 1428),
        (["--windowsize", "16"], "options.max_windowsize_blocks", 16),
        (["--window-bytes", "4m"], "options.max_window_bytes", 4 << 20),
        (["-R", "4000:4999"], "tid_ports", "4000-4999"),
        (["-T", "2000000"], "retransmit.initial_ms", 2000),
        (["-p"], "rules", None),
        (["-p", "-r", "blksize", "-r", "tsize"], "rules", [{"options": {"refuse": ["blksize", "tsize"]}}]),
        (["-c"], "write_config.on_existing", "replace"),
        (["-c"], "write_config.file_mode", "0666"),
        (["-c", "-U", "027"], "write_config.file_mode", "0640"),
        (["-c", "-p"], "write_config.file_mode", None),
        (["--read-only"], "write_config", None),
        (["--max-size", "10k"], "max_file_size_bytes", 10_240),
        (["-lvvL", "--pidfile=/run/x", "--normalize=root"], "root_dir", "/srv/tftp"),
    ],
)
def test_each_option_of_tftpd_hpa(arguments: list[str], path: str, value: Any) -> None:
    assert hpa("-s", *arguments, "/srv/tftp").get(path) == value


def test_several_directories_are_a_rule_and_nothing_else_is_read() -> None:
    carried = hpa("-p", "/srv/a", "/srv/b/")

    assert carried.get("root_dir") == "/"
    assert carried.get("rules") == [{"paths": ["srv/a/**", "srv/b/**"]}, {"allow": []}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", "/a", "-u", "tftp"], "User=tftp"),
        (["-s", "/a", "/b"], "/b: with -s the first directory alone counts"),
        (["/a"], "refuses relative names"),
        ([], "no directory"),
        (["-s", "/a", "-c"], "narrow write_config.allowed_patterns"),
        (["-s", "/a", "-a", "boot.example:69"], "write the address that it stands for into bind_addr"),
        (["-s", "/a", "--path-prefix", "/x"], "rewrite rule"),
    ],
)
def test_what_stays_behind_is_said(arguments: list[str], said: str) -> None:
    assert said in "\n".join(remark.text for remark in hpa(*arguments).remarks)


@pytest.mark.parametrize("arguments", [["--no-such"], ["-B", "many", "/a"], ["-R", "x:y", "/a"], ["-cU", "9", "/a"]])
def test_what_in_tftpd_would_not_take_is_refused_where_it_stands(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^unit:3: in\.tftpd: "):
        hpa(*arguments)


def test_value_out_of_our_range_is_refused_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"^unit:3: --blocksize: options\.max_blksize_bytes: expected 8\.\.65464"):
        hpa("-s", "-B", "7", "/a")


HPA = """# /etc/default/tftpd-hpa
TFTP_USERNAME="tftp"
TFTP_DIRECTORY="/srv/tftp"
TFTP_ADDRESS=":6969"
TFTP_OPTIONS="--secure -R 4000:4001"
"""
UNIT = """[Service]
ExecStart=/usr/sbin/old
ExecStart=
# ExecStart=/no
ExecStart=-/usr/sbin/in.tftpd -s \\
    /var/lib/tftpboot
StandardInput=socket
"""
XINETD = """service tftp
{
    socket_type = dgram
    user        = root
    server      = /usr/sbin/in.tftpd
    server_args = -s /tftpboot
    only_from   = 10.1.0.0 192.0.2.7
    only_from  += fd00::/8 boot.example
    no_access   = 10.1.9.9
    cps         = 100 2
    flags       = IPv4
    disable     = yes
}
"""
DNSMASQ = """domain-needed  # of DNS
enable-tftp
tftp-root=/srv/tftp/
tftp-root=/srv/lab,eth1
tftp-unique-root=mac
tftp-secure
tftp-lowercase
tftp-mtu=1500
tftp-port-range=5000,5100
listen-address=10.0.0.1,::1
quiet-tftp
"""
ATFTPD = """USE_INETD=false
OPTIONS="--tftpd-timeout 300 --retry-timeout 5 --maxthread 100 --verbose=5 --pcre /etc/a.pcre --no-blksize \
--port 6969 /srv/tftp"
"""
FILES = {"tftpd-hpa": HPA, "systemd": UNIT, "xinetd": XINETD, "dnsmasq": DNSMASQ, "atftpd": ATFTPD}


def imported(tmp_path: Path, text: str, form: str | None = None) -> Carried:
    file = tmp_path / "theirs"
    file.write_text(text)
    return carry(file, form)


def test_every_form_is_told_by_its_text() -> None:
    assert {form_of(text, "x"): text for text in FILES.values()} == {form: FILES[form] for form in FORMS}
    with pytest.raises(ConfigError, match=r"^x: no configuration that is known; say which it is with --from "):
        form_of("hello\n", "x")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_printed_is_a_configuration_of_ours(form: str, tmp_path: Path) -> None:
    carried = imported(tmp_path, FILES[form])
    ours = tmp_path / "snow-owl.toml"
    ours.write_text("\n".join(carried.lines()))

    assert load(ours) == carried.checked()


def test_variables_of_debian(tmp_path: Path) -> None:
    carried = imported(tmp_path, HPA)

    assert (carried.get("root_dir"), carried.get("bind_addr")) == ("/srv/tftp", ":6969")
    assert carried.get("tid_ports") == "4000-4001"
    assert f'tid_ports = "4000-4001"  # {tmp_path}/theirs:5: --ports' in carried.lines()


@pytest.mark.parametrize("line", ["TFTP_OPTIONS=$(cat x)", "TFTP_OPTIONS=`x`", "exit 1", 'TFTP_OPTIONS="-s'])
def test_what_needs_a_shell_is_refused_by_its_line(line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"theirs:2: "):
        imported(tmp_path, f"TFTP_DIRECTORY=/a\n{line}\n")


def test_last_command_of_a_unit_counts(tmp_path: Path) -> None:
    assert imported(tmp_path, UNIT).get("root_dir") == "/var/lib/tftpboot"
    for text, said in [("[Service]\nExecStart=\n", "no ExecStart"), ("ExecStart=/bin/x $OPTIONS\n", "another file")]:
        with pytest.raises(ConfigError, match=said):
            imported(tmp_path, text)
    with pytest.raises(ConfigError, match='"nginx" is no server that can be imported'):
        imported(tmp_path, "ExecStart=/usr/sbin/nginx -g x\n")


def test_who_may_of_xinetd_are_rules(tmp_path: Path) -> None:
    carried = imported(tmp_path, XINETD)
    said = "\n".join(f"{remark.place}: {remark.text}" for remark in carried.remarks)

    assert carried.get("bind_addr") == "0.0.0.0:69"
    assert carried.get("rules") == [
        {"clients": ["10.1.9.9/32"], "allow": []},
        {"require": "world_readable", "clients": ["10.1.0.0/16", "192.0.2.7/32", "fd00::/8"]},
        {"allow": []},
    ]
    assert "theirs:8: only_from boot.example: " in said
    assert "theirs:10: cps = 100 2: " in said
    assert "theirs:12: disable = yes: " in said


def test_only_from_nobody_known_lets_nobody_in(tmp_path: Path) -> None:
    text = XINETD.replace("10.1.0.0 192.0.2.7", "a.example").replace("fd00::/8 boot.example", "b.example")

    assert imported(tmp_path, text).get("rules") == [{"clients": ["10.1.9.9/32"], "allow": []}, {"allow": []}]


def test_lines_of_dnsmasq(tmp_path: Path) -> None:
    carried = imported(tmp_path, DNSMASQ)

    assert carried.tree == {
        "root_dir": "/srv/tftp",
        "bind_addr": ["10.0.0.1:69", "[::1]:69"],
        "tid_ports": "5000-5100",
        "names": {"case": "lower"},
        "options": {"max_blksize_bytes": 1468},
        "limits": {"max_transfers": 50},
        "logging": {"level": "warning"},
        "rules": [{"roots": ["{mac_dashes}", "."], "require": "owned"}],
    }
    assert [remark.place for remark in carried.remarks] == [f"{tmp_path}/theirs:4"]


def test_port_range_beside_a_single_port_means_nothing_there_either(tmp_path: Path) -> None:
    carried = imported(tmp_path, "enable-tftp\ntftp-root=/a\ntftp-port-range=1,2\ntftp-single-port\n")

    assert (carried.get("single_port"), carried.get("tid_ports")) == (True, None)
    assert [remark.place for remark in carried.remarks] == [f"{tmp_path}/theirs:3"]


def test_roots_by_address_and_mac_nest(tmp_path: Path) -> None:
    text = "enable-tftp\ntftp-root=/a\ntftp-unique-root\ntftp-unique-root=mac\ntftp-no-blocksize\ntftp-max=7\n"
    carried = imported(tmp_path, text)

    assert carried.get("limits.max_transfers") == 7
    (rule,) = carried.get("rules")
    assert rule["roots"] == ["{address}/{mac_dashes}", "{address}", "{mac_dashes}", "."]
    assert rule["options"] == {"refuse": ["blksize", "blksize2"]}


def test_dnsmasq_without_tftp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no enable-tftp"):
        imported(tmp_path, "tftp-root=/a\n")
    with pytest.raises(ConfigError, match="theirs:2: tftp-max=many: expected a number"):
        imported(tmp_path, "enable-tftp\ntftp-max=many\n")


def test_options_of_atftpd(tmp_path: Path) -> None:
    carried = imported(tmp_path, ATFTPD)

    assert carried.tree == {
        "root_dir": "/srv/tftp",
        "bind_addr": ":6969",
        "rewrite_file": "/etc/a.pcre.map",
        "write_config": WRITES,
        "limits": {"max_transfers": 100},
        "retransmit": {"initial_ms": 5000, "ceiling_ms": 5000},
        "rules": [{"options": {"refuse": ["blksize"]}}],
    }
    assert any("config import --from pcre /etc/a.pcre" in remark.text for remark in carried.remarks)


def test_pcre_file_becomes_a_map_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.pcre"
    file.write_text("^ppx(.*)$ px$1\n^a\\d+(?:x|y)$ b#c\n")
    assert main(["config", "import", "--from", "pcre", str(file)]) == 0
    (tmp_path / "a.map").write_text(capsys.readouterr().out)

    assert main(["rewrite", "test", str(tmp_path / "a.map"), "ppxfoo", "a99x", "other"]) == 0
    assert capsys.readouterr().out == "ppxfoo -> ppxfoo, else pxfoo\na99x -> a99x, else b#c\nother -> other\n"


@pytest.mark.parametrize("pattern", ["a(?=b)", r"(a)\1", "a++", r"\bx"])
def test_pattern_that_needs_backtracking_is_refused_by_its_line(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"^f:2: .* needs backtracking"):
        list(map_lines(f"a b\n{pattern} c\n", "f"))
    with pytest.raises(ConfigError, match=r"^f:1: expected PATTERN REPLACEMENT"):
        list(map_lines("alone\n", "f"))


def test_command_prints_the_file_and_says_what_stays_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tftpd-hpa"
    file.write_text(HPA)

    assert main(["config", "import", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"# NOT CARRIED OVER: {file}:5: --user: ")
    assert err.startswith(f"not carried over: {file}:5: --user: -u tftp: the server runs as the user that starts it; ")
    assert len(err.splitlines()) == 1
    assert main(["config", "import", "--from", "nginx", str(file)]) == 2
    assert main(["config", "import", str(tmp_path / "no")]) == 2
