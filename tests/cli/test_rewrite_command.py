"""`snow-owl-tftp rewrite test` as a user calls it."""

import os
from pathlib import Path

import pytest
from tests.support.maps import DEBIAN

from snow_owl_tftp.cli import main


@pytest.fixture
def debian(tmp_path: Path) -> str:
    path = tmp_path / "tftpd.map"
    path.write_bytes(DEBIAN)
    return str(path)


def test_names_and_what_they_become(debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "test", debian, r"C:\Boot\BCD", "ok/x.pvt", "a\n\udcff"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        r"C:\Boot\BCD -> /Boot/BCD",
        "ok/x.pvt -> ok/x.pvt",
        r"a\n\xff -> /tftpboot/a\n\xff",
    ]


def test_steps_and_a_denial(debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "test", debian, r"a\x.pvt", "--steps"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        r"a\x.pvt -> ERROR: Access violation (the rule at line 8 denies it)",
        '  line 2: makes "a/x.pvt"',
        '  line 7: makes "/tftpboot/a/x.pvt"',
    ]


def test_who_asks_for_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "map"
    path.write_text("rGE ^ \\i/\nrP6 ^ up/\\x/\n")
    arguments = ["rewrite", "test", str(path), "a"]
    assert main(arguments) == main([*arguments, "--write", "--client", "2001:DB8::1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a -> 192.0.2.34/a, else a",
        "a -> up/20010DB8000000000000000000000001/a",
    ]
    assert main([*arguments, "--client", "localhost"]) == 2
    assert '"localhost" is no address' in capsys.readouterr().err


def test_a_configuration(tmp_path: Path, debian: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "owl.toml"
    path.write_text(f'rewrite_file = "{debian}"\n[[rewrite]]\npattern = "^(x+)"\nreplacement = \'ok/\\U\\1\'\n')
    assert main(["rewrite", "test", str(path), "xxy"]) == 0
    assert capsys.readouterr().out == "xxy -> ok/XXy\n"
    path.write_text("workers = 1\n")
    assert main(["rewrite", "test", str(path), "x"]) == 2
    assert "it rewrites nothing" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"r (\n", None])
def test_a_faulty_file_is_one_line(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "map"
    if content is not None:
        path.write_bytes(content)
    assert main(["rewrite", "test", os.fspath(path), "x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"snow-owl-tftp: {path}: ")
