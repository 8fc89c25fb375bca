"""The pages about who gets what show what happens: settings that load, and commands that print what stands there."""

import re
import shlex
from pathlib import Path

import pytest

from snow_owl_tftp.cli import main
from snow_owl_tftp.config.load import load
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate.explain import Question, explain
from snow_owl_tftp.policy.machines.formats import read_inventory

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = ("rules", "names", "rewriting", "machines", "configuration")
FILES = {
    "srv/common/pxelinux.0": "ab",
    "srv/machines/52:54:00:12:34:56/own": "",
    "srv/groups/shop/own": "",
    "machines.toml": '[[machine]]\nmac = "52:54:00:12:34:56"\nname = "lathe"\ngroup = "shop"\n',
    "dnsmasq.leases": "",
    "tftpd.map": "",
}
PLACES = {
    "/srv/tftp": "srv",
    "/etc/snow-owl/machines.toml": "machines.toml",
    "/var/lib/misc/dnsmasq.leases": "dnsmasq.leases",
    "/etc/tftpd.map": "tftpd.map",
    "/var/log": "log",
}


def text_of(page: str) -> str:
    return (REPOSITORY / f"docs/{page}.md").read_text(encoding="utf-8")


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text_of(page), re.DOTALL)


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "log").mkdir()
    return tmp_path


def here(text: str, folder: Path) -> str:
    for place, name in PLACES.items():
        text = text.replace(place, str(folder / name))
    return text


def configurations(page: str) -> list[str]:
    return [block for block in blocks(page, "toml") if not is_inventory(block)]


def is_inventory(block: str) -> bool:
    tables = re.findall(r"^\[.*\]$", block, re.MULTILINE)
    return bool(tables) and set(tables) == {"[[machine]]"}


@pytest.mark.parametrize("page", PAGES)
def test_settings_of_a_page_are_settings(page: str, laid_out: Path) -> None:
    shown = configurations(page)
    assert shown
    for block in shown:
        config = laid_out / "owl.toml"
        root = "" if "root_dir" in block else f'root_dir = "{laid_out}/srv"\n'
        config.write_text(root + here(block, laid_out))
        explain(load(config), Question("127.0.0.1", ("127.0.0.1", 69), "x"))


def test_inventories_of_the_page_are_inventories() -> None:
    (toml,) = filter(is_inventory, blocks("machines", "toml"))
    (csv,) = blocks("machines", "csv")
    for ending, text in (("toml", toml), ("csv", csv)):
        assert len(read_inventory(text.encode(), f"machines.{ending}")) == 2
    # The line that the page shows of a double.
    (said,) = re.findall(r"entry 3: (mac: entry 1 has .*)", text_of("machines"))
    with pytest.raises(ConfigError, match=f"entry 3: {re.escape(said)}$"):
        read_inventory((toml + '[[machine]]\nmac = "52:54:00:12:34:56"\n').encode(), "machines.toml")


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    main(arguments)
    return capsys.readouterr().out


def test_explain_prints_what_the_page_shows(laid_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = text_of("rules").partition("## Ask first")[2]
    config = laid_out / "owl.toml"
    (shown,) = re.findall(r"```toml\n(.*?)```", before, re.DOTALL)
    config.write_text(here(shown, laid_out))
    (session,) = re.findall(r"```console\n(.*?)```", before, re.DOTALL)
    commands = re.findall(r"^\$ snow-owl-tftp (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    assert len(commands) == 2
    for command, output in commands:
        told = printed(capsys, [str(config) if word == "FILE" else word for word in shlex.split(command)])
        assert told.replace(str(laid_out / "srv"), "/srv/tftp") == output


def test_rewrite_test_prints_what_the_page_shows(laid_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = text_of("rewriting").partition("## Try it out")[2]
    (rules,) = re.findall(r"```\n(# /etc.*?)```", page, re.DOTALL)
    (laid_out / "tftpd.map").write_text(rules)
    (session,) = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    command, _, output = session.partition("\n")
    assert command.startswith("$ snow-owl-tftp rewrite test ")
    assert printed(capsys, shlex.split(here(command.removeprefix("$ snow-owl-tftp "), laid_out))) == output
