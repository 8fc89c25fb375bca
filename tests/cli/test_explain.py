"""`snow-owl-tftp explain`: what it says is what the server does."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.server import serve_in_thread

from snow_owl_tftp.cli import main
from snow_owl_tftp.config.load import load

TOML = """
root_dir = "{root}"
bind_addr = "127.0.0.1:0"

[write_config]
enabled = true
allowed_patterns = ["up/**"]

[[rules]]
clients = ["10.9.0.0/16"]

[[rules]]
paths = ["secret/**"]
allow = []

[[rules]]
paths = ["quiet"]
allow = "ignore"

[[rules]]
macs = ["52:54:00:*"]
roots = ["machines/{{mac}}", "common"]
options = {{ max_blksize_bytes = 1428, refuse = ["timeout"] }}

[[rules]]
paths = ["two/**"]
roots = ["site", "common"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name in ("x", "common/x", "common/two/y", "site/two/z", "up/old", "machines/52:54:00:00:00:01/own"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    path = tmp_path / "owl.toml"
    path.write_text(TOML.format(root=tmp_path / "root"))
    return path


def explained(
    capsys: pytest.CaptureFixture[str], config: Path, *arguments: str, client: str = "127.0.0.1"
) -> tuple[int, dict[str, Any]]:
    status = main(["explain", "--config", str(config), "--client", client, "--json", *arguments])
    tree: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, tree


def test_each_step_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "--mac",
        "52-54-00-00-00-01",
        "--option",
        "blksize=9000",
        "--option",
        "timeout=3",
        "--option",
        "tsize=0",
        "x",
    ]
    status, told = explained(capsys, config, *asked)
    root = config.parent / "root"
    assert status == 0
    assert told["is_served"]
    assert told["machine"]["mac"] == "52:54:00:00:00:01"
    (meaning,) = told["meanings"]
    assert (meaning["names"], meaning["way"], meaning["result"]) == (["x"], "sent", "")
    assert meaning["passed"] == [
        {"rule": 1, "unmet": "clients"},
        {"rule": 2, "unmet": "paths"},
        {"rule": 3, "unmet": "paths"},
    ]
    assert told["rule"] == meaning["rule"] == 4
    assert meaning["roots"] == [
        {"root": f"{root}/machines/52:54:00:00:00:01", "result": "File not found"},
        {"root": f"{root}/common", "result": "found"},
    ]
    assert (told["file"], told["size_bytes"]) == (f"{root}/common/x", len("common/x"))
    assert told["options"] == {"blksize": "1428", "tsize": str(len("common/x"))}
    assert not told["for_all"]


@pytest.mark.parametrize(
    ("name", "error", "rule", "why"),
    [
        ("secret/y", 2, 2, "rule 2"),
        ("up/../secret/y", 2, 2, "rule 2"),
        ("quiet", None, 3, "rule 3: ignored"),
        ("missing", 1, 0, ""),
        ("two/missing", 1, 5, ""),
        ("../x", 2, 0, ""),
        (".git/config", 1, 0, 'a part of the name begins with a dot; hidden = "serve" would allow it'),
        ("up", 2, 0, ""),
    ],
)
def test_what_is_not_served_says_why(
    config: Path, capsys: pytest.CaptureFixture[str], name: str, error: int | None, rule: int, why: str
) -> None:
    status, told = explained(capsys, config, name)
    assert (status, told["is_served"], told["error"], told["rule"], told["why"]) == (1, False, error, rule, why)


@pytest.mark.parametrize(
    ("arguments", "is_served", "error"),
    [
        (["up/new"], True, None),
        (["up/old"], False, 6),
        (["elsewhere"], False, 2),
        (["secret/up"], False, 2),
        (["up/no/directory"], False, 1),
        (["--mac", "52:54:00:00:00:01", "up/new"], False, 1),
    ],
)
def test_uploads_are_explained_and_change_nothing(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], is_served: bool, error: int | None
) -> None:
    left = config.parent / "root/up/.snow-owl-0123456789abcdef.part"  # a server sweeps such away
    left.write_bytes(b"left")
    before = sorted(config.parent.rglob("*"))
    status, told = explained(capsys, config, "--write", *arguments)
    assert (status, told["is_served"], told["error"]) == (1 - is_served, is_served, error)
    assert sorted(config.parent.rglob("*")) == before


def test_explanation_is_what_the_server_does(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(config)
    names = [
        "x",
        "common/x",
        "two/y",
        "two/z",
        "two/q",
        "secret/x",
        "up/old",
        "up",
        ".x",
        "../x",
        "x/../common/x",
        "x\xff",
    ]
    with serve_in_thread(config.parent / "root", {"rules": settings.rules}) as server, Client(server.address) as client:
        for name in names:
            status, told = explained(capsys, config, name)
            if status == 0:
                assert client.get(name).payload == Path(told["file"]).read_bytes(), name
            else:
                with pytest.raises(Refused) as refused:
                    client.get(name)
                assert refused.value.code == told["error"], name


def test_lines_are_for_people(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", "--config", str(config), "--client", "127.0.0.1"]
    assert main([*arguments, "--option", "tsize=0", "two/z"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "client    127.0.0.1 asks 127.0.0.1, port 0, to read two/z",
        "machine   not known",
        "name      two/z",
        "rule      1 does not fit: clients",
        "rule      2 to 3 do not fit: paths",
        "rule      4 does not fit: macs",
        "rule      5 decides",
        f"root      {config.parent}/root/site: found",
        f"file      {config.parent}/root/site/two/z (10 bytes)",
        "options   tsize=10",
        "limits    max_transfers_per_client=1000 max_half_open_per_client=1000",
        (
            "limits    max_transfers=200000 max_half_open=131072 max_unproven_network_bytes=16777216"
            " max_pending_requests=65536"
        ),
        "answer    served",
    ]
    assert main([*arguments, "a\x1b[2Jb"]) == 1
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--client", "host", "x"], "--client: expected an address"),
        (["--client", "127.0.0.1", "--option", "blksize", "x"], "--option: expected"),
        (["--client", "127.0.0.1", "--listen", "nowhere", "x"], "--listen: expected"),
        (["--client", "127.0.0.1", "--root", "/usr", "--mac", "5254", "x"], "--mac: expected a MAC"),
        (["--client", "127.0.0.1", "x" * 600], "no client can send this"),
        (["--client", "127.0.0.1", "--config", "/nonexistent.toml", "x"], "/nonexistent.toml: No such file"),
    ],
)
def test_what_cannot_be_asked_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert main(["explain", *arguments]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert line in told


LIMITED = """
[limits]
max_requests_per_s_per_client = 30
max_bytes_per_s_per_client = 1_000

[[rules]]
paths = ["common/**", "up/**"]
limits = {{ requests_per_s = 20, transfers = 4 }}
"""


@pytest.mark.parametrize(("arguments", "answers"), [(["common/x"], 0), (["--write", "up/new"], 0), (["common/no"], 1)])
def test_limits_are_those_of_the_rule_where_it_has_any(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], answers: int
) -> None:
    before, _, _ = TOML.partition("[[rules]]")
    config.write_text((before + LIMITED).format(root=config.parent / "root"))
    status, told = explained(capsys, config, *arguments)
    assert status == answers
    assert told["rule"] == 1
    of_client = {key: value for key, value in told["limits"].items() if "client" in key or "rules" in key}
    assert of_client == {
        "limits.max_half_open_per_client": 1000,
        "limits.max_bytes_per_s_per_client": 1000,
        "rules[1].limits.requests_per_s": 20,
        "rules[1].limits.transfers": 4,
    }
    _, told = explained(capsys, config, "x")
    assert told["limits"]["limits.max_requests_per_s_per_client"] == 30
    assert not any("rules" in key for key in told["limits"])


def test_line_of_limits_names_the_rule(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, _, _ = TOML.partition("[[rules]]")
    config.write_text((before + LIMITED).format(root=config.parent / "root"))
    assert main(["explain", "--config", str(config), "--client", "127.0.0.1", "common/x"]) == 0
    line = (
        "limits    max_half_open_per_client=1000 max_bytes_per_s_per_client=1000 rules[1].limits.requests_per_s=20"
        " rules[1].limits.transfers=4"
    )
    assert line in capsys.readouterr().out.splitlines()
