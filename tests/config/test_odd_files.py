"""Odd configurations, ours and others': each gets its line, or means what it says there."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.cli import main
from snow_owl_tftp.config.importing.forms import carry
from snow_owl_tftp.config.importing.pcre import map_lines
from snow_owl_tftp.config.lines import line_of, parts_of
from snow_owl_tftp.config.load import load
from snow_owl_tftp.errors import ConfigError


def imported(tmp_path: Path, text: str, form: str | None = None) -> Any:
    file = tmp_path / "theirs"
    file.write_text(text)
    return carry(file, form)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"a[b" = 1\n', "unknown key"),
        ('"[machines]" = 1\n', "unknown key"),
        ('root_dir = "a\\u0000b"\n', "root_dir: "),
        ('link_targets = ["a\\u0000b"]\n', "link_targets: "),
        (f"workers = {'1' * 5000}\n", "not TOML"),
        (f"x = {'[' * 100_000}\n", "not TOML"),
        ("\ufeffworkers = 1\n", "not TOML"),
    ],
)
def test_odd_file_is_one_line_each(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "snow-owl.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)


def test_odd_variables_are_named() -> None:
    for name in ("SNOW_OWL_TFTP__A[B", "SNOW_OWL_TFTP__WORKERS__X", "SNOW_OWL_TFTP__", "SNOW_OWL_TFTP__RULES"):
        with pytest.raises(ConfigError, match=r"^SNOW_OWL_TFTP__"):
            load(None, environ={name: "1"})


def test_hidden_files_are_no_drop_ins(tmp_path: Path) -> None:
    file = tmp_path / "snow-owl.toml"
    file.write_text("workers = 2\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / ".hidden.toml").write_text("workers = 3\n")
    (tmp_path / "conf.d" / ".#lock.toml").symlink_to("nobody@nowhere.1:2")
    assert load(file).workers == 2


def test_drop_ins_that_may_not_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    file = tmp_path / "snow-owl.toml"
    file.write_text("")
    (tmp_path / "conf.d").mkdir()
    monkeypatch.setattr(os, "listdir", refuse)  # root may read every directory
    with pytest.raises(ConfigError, match=r"conf\.d: Permission denied"):
        load(file)


def test_template_dir_of_the_environment_is_for_all_files(tmp_path: Path) -> None:
    file = tmp_path / "snow-owl.toml"
    file.write_text('[[templates]]\nmatch = "x"\ntemplate = "x.j2"\n')
    assert load(file, environ={"SNOW_OWL_TFTP__TEMPLATE_DIR": "/t"}).templates[0].template == "x.j2"


def test_value_of_many_lines_takes_no_time() -> None:
    text = "a = 1\nrules = [\n" + '{ paths = ["a"] },\n' * 3_000 + "]\nb = 2\n"
    assert [line_of(text, parts_of(key)) for key in ("a", "rules[1500].paths", "b")] == [1, 2, 3_004]


@pytest.mark.parametrize(
    "text",
    ['TFTP_OPTIONS="-s \'"\n', 'OPTIONS="--daemon \' /srv"\n', 'service tftp\nserver = x\nserver_args = -s "/srv\n'],
)
def test_quote_without_an_end_is_a_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"theirs:\d+: "):
        imported(tmp_path, text)


@pytest.mark.parametrize("form", ["tftpd-hpa", "atftpd"])
def test_file_without_what_its_form_has_is_refused(form: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the file that has them"):
        imported(tmp_path, "", form)


def test_unit_says_its_own_way_what_is_run(tmp_path: Path) -> None:
    assert imported(tmp_path, "ExecStart=@/usr/sbin/in.tftpd in.tftpd -s /srv\n").get("root_dir") == "/srv"
    text = "ExecStart=/usr/sbin/in.tftpd \\\n# a comment\n -s /srv\n"
    assert imported(tmp_path, text).get("root_dir") == "/srv"
    with pytest.raises(ConfigError, match=r"theirs:1: "):
        imported(tmp_path, "ExecStart=/usr/sbin/in.tftpd -s /srv/%i\n")


def test_xinetd_has_a_port_and_other_services(tmp_path: Path) -> None:
    text = """service telnet
{
    only_from = 10.0.0.0/8
}
service tftp
{
    server = /usr/sbin/in.tftpd
    server_args = -s /srv
    bind = 10.0.0.1
    port = 6969
}
"""
    carried = imported(tmp_path, text)
    assert carried.get("bind_addr") == "10.0.0.1:6969"
    assert carried.get("rules") == [{"require": "world_readable"}]


def test_dnsmasq_quotes_and_comments(tmp_path: Path) -> None:
    carried = imported(tmp_path, 'enable-tftp # on\ntftp-root="/srv/a#b"\nconf-dir=/etc/dnsmasq.d\n')
    assert carried.get("root_dir") == "/srv/a#b"
    assert any("conf-dir" in remark.text for remark in carried.remarks)


def test_directory_that_looks_like_a_glob_is_none(tmp_path: Path) -> None:
    carried = imported(tmp_path, "ExecStart=/usr/sbin/in.tftpd -p /srv/a[1] /srv/b\n")
    assert carried.get("rules")[0]["paths"] == ["srv/a[[]1]/**", "srv/b/**"]


def test_classes_of_perl_are_spelled_out_in_brackets_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "map"
    file.write_text("\n".join(map_lines("^[\\w.-]+/(\\S+)\\.cfg$ $1\n", "f")))
    assert main(["rewrite", "test", str(file), "abc-1.x/foo.cfg", "a b/foo.cfg"]) == 0
    assert capsys.readouterr().out == "abc-1.x/foo.cfg -> abc-1.x/foo.cfg, else foo\na b/foo.cfg -> a b/foo.cfg\n"


@pytest.mark.parametrize("pattern", ["a*?b", r"a\tb", r"[\]]", "[#]"])
def test_what_would_mean_something_else_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"^f:1: "):
        list(map_lines(f"{pattern} c\n", "f"))
