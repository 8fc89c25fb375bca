"""Rewriting in the server: what is opened, what is told, which requests the engine may repeat, and a reload."""

import asyncio
import inspect
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.server import run_command, serve_command, serve_in_thread, wait_for

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.refusals import refusal_of_errno
from snow_owl_tftp.content.source import LATER, Later, Named, NotHere
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.rewrites import Rewritten
from snow_owl_tftp.protocol.packets import parse_request_untrusted
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.meanings import Meanings
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.slow_opens import Elsewhere
from snow_owl_tftp.server.verdict import Refused as RefusedVerdict
from snow_owl_tftp.server.verdict import Verdict

FLOWS_ON = {"performance.platform.batch.enable_flows": True}


@dataclass
class Asked:
    datagram: bytes
    transfer_id: int = 1
    peer: tuple[str, int] = ("192.0.2.34", 2000)
    local_address: str | None = None
    endpoint: int = 0


def rrq(name: str) -> bytes:
    return b"\0\1" + name.encode("utf-8", "surrogateescape") + b"\0octet\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "root"
    for name in ("plain", "Boot/BCD", "machines/C0000222/a", "common/a", "common/b", "v6/a", ".hidden/x", "dir/a/x"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    return tree


def settings_of(tree: Path, rules: str, **others: object) -> Settings:
    path = tree.parent / "map"
    path.write_text(rules)
    return override(Settings(), {"root_dir": str(tree), "rewrite_file": str(path), **FLOWS_ON, **others})


def decide(settings: Settings, name: str, peer: str = "192.0.2.34") -> tuple[str, bool]:
    """What is read, or the ERROR; and whether the engine may repeat it."""
    decider = FileDecider(settings)

    async def ask() -> Verdict:
        verdict = decider.decide(Asked(rrq(name), peer=(peer, 2000)))
        return await verdict if inspect.isawaitable(verdict) else verdict

    try:
        verdict = asyncio.run(ask())
    finally:
        decider.close()
    if isinstance(verdict, RefusedVerdict):
        return f"{verdict.cause} ({getattr(verdict.cause, 'why', '')})", False
    content = os.pread(verdict.plan.fd, 100, 0)
    # Where the engine repeats it, it looks at the path that was opened, for the very datagram that was sent.
    assert verdict.flow is None or verdict.flow[1:] == (content, rrq(name))
    verdict.discard()
    return content.decode(), verdict.flow is not None


RULES = r"""
rg \\ /
ri ^/?boot/bcd$ Boot/BCD
rE ^own/ machines/\x/
r ^own/ common/
rE ^any/ machines/
rE ^any/ common/
r6 ^six/ v6/
4r ^six/ common/
rE ^dirs/ dir/
r ^dirs/ common/
a \.key$ No\ keys
rE ^hid/ .hidden/
r ^hid/ common/
r ^gone/ nowhere/
"""


@pytest.mark.parametrize(
    ("name", "content", "is_flow"),
    [
        ("plain", "plain", True),
        (r"\boot\bcd", "Boot/BCD", True),
        ("own/a", "machines/C0000222/a", False),  # another client has another file
        ("own/b", "common/b", False),
        ("any/a", "common/a", False),  # the first candidate may appear
        ("six/a", "common/a", False),
        ("dirs/a", "common/a", False),  # a directory is nothing that can be opened
        ("hid/b", "common/b", True),  # hidden: as if it were not there, and never will be
    ],
)
def test_the_file_meant_is_sent(tree: Path, name: str, content: str, is_flow: bool) -> None:
    assert decide(settings_of(tree, RULES), name) == (content, is_flow)


def test_first_candidate_may_be_repeated_while_it_is_there(tree: Path) -> None:
    rules = "rE ^any/ common/\nr ^any/ v6/\n"
    assert decide(settings_of(tree, rules), "any/a") == ("common/a", True)


def test_another_client_gets_his_own(tree: Path) -> None:
    assert decide(settings_of(tree, RULES), "six/a", "2001:db8::1") == ("v6/a", False)
    assert decide(settings_of(tree, RULES), "six/a", "::ffff:192.0.2.1") == ("common/a", False)


def test_refusals_tell_the_operator_what_was_looked_for(tree: Path) -> None:
    settings = settings_of(tree, RULES)
    said, _ = decide(settings, "gone/x")
    assert said == 'ERROR 1: File not found (rewritten to "nowhere/x")'
    said, _ = decide(settings, "a.key")
    assert said == "ERROR 2: No keys (the rule at line 12 denies it)"


def test_a_denial_stands_only_where_no_candidate_opens(tree: Path) -> None:
    settings = settings_of(tree, "rE ^ common/\na ^ Not\\ for\\ you\n")
    assert decide(settings, "a") == ("common/a", True)
    assert decide(settings, "plain") == ("ERROR 2: Not for you (the rule at line 2 denies it)", False)


def test_nothing_leaves_the_root(tree: Path) -> None:
    (tree.parent / "secret").write_text("secret")
    for rule in (r"r ^ ../", r"rg // /../", r"r ^.*$ /proc/self/cwd/\0", r"r ^.*$ link/\0", "rg x /.."):
        (tree / "link").unlink(missing_ok=True)
        (tree / "link").symlink_to("..")
        settings = settings_of(tree, rule)
        for name in ("secret", "//secret", "x/secret", "../secret", "..\\secret", "xx/secret"):
            with serve_in_thread(tree, {"rewrite_file": settings.rewrite_file}) as server:
                with Client(server.address) as client, pytest.raises(Refused) as caught:
                    client.get(name)
                assert caught.value.code in (1, 2)


def test_rules_of_the_settings_come_before_the_file(tree: Path) -> None:
    rewrite = [
        {"pattern": r"^(one|two)/", "replacement": r"three/"},
        {"pattern": "x+", "replacement": "a", "every": True, "ignore_case": True},
        {"pattern": "^stay/", "replacement": "nowhere/", "last": True},
        {"pattern": "^up/", "replacement": "common/", "requests": "write"},
    ]
    settings = settings_of(tree, "r ^three/ common/\nr ^nowhere/ common/\n", rewrite=rewrite)
    assert decide(settings, "two/X")[0] == "common/a"
    assert decide(settings, "stay/a")[0] == 'ERROR 1: File not found (rewritten to "nowhere/a")'
    assert decide(settings, "up/a")[0].startswith("ERROR 1")


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"rewrite_file": "/nonexistent/map"}, "rewrite_file: /nonexistent/map: No such file"),
        ({"rewrite_file": "/"}, "rewrite_file: /: Is a directory"),
        ({"rewrite_file": "/dev/zero"}, "rewrite_file: /dev/zero: more than 1048576 bytes"),
        ({"rewrite": [{"pattern": "(a"}]}, r"rewrite[1]: "),
        ({"rewrite": [{"pattern": "a"}, {"pattern": r"\d"}]}, r"rewrite[2]: "),
        ({"rewrite": [{"pattern": "a"}] * 3, "rewrite_max_steps": 2}, "rewrite_max_steps: 3 rules"),
    ],
)
def test_faulty_settings_are_named(others: Mapping[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Generation.of(override(Settings(), others))
    assert str(caught.value).startswith(said)
    assert ";" in str(caught.value)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"rewrite": [{"replacement": "a"}]}, "rewrite[1].pattern: missing; expected "),
        ({"rewrite": [{"pattern": "a"}, {"pattern": "a", "patern": "b"}]}, "rewrite[2].patern: unknown key"),
        ({"rewrite": [{"pattern": ""}]}, "rewrite[1].pattern: expected a text of 1..4096 characters"),
        ({"rewrite": [{"pattern": "a", "requests": "put"}]}, 'rewrite[1].requests: expected one of "all"'),
        ({"rewrite": {"pattern": "a"}}, "rewrite: expected tables, each [[rewrite]]"),
        ({"rewrite_max_steps": 0}, "rewrite_max_steps: expected 1..65536"),
    ],
)
def test_settings_are_checked_key_by_key(others: Mapping[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(Settings(), others, source="test")
    assert str(caught.value).startswith(f"test: {said}")


def test_uploads_are_rewritten_before_the_rules_see_them(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "map").write_text(
        "rg \\\\ /\nrP ^([^/]*)\\.log$ logs/\\i/\\1.log\nrPE ^ no/\nrPE ^ up/\naP ^ Not\\ here\n"
    )
    config = tmp_path / "owl.toml"
    config.write_text(
        f'root_dir = "{tree}"\nrewrite_file = "{tmp_path / "map"}"\n'
        '[write_config]\nenabled = true\ncreate_directories = true\nallowed_patterns = ["logs/**", "up/logs/**"]\n'
    )
    with serve_command(None, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        with Client(server.address) as client:
            client.put("phone.log", b"said")
            with pytest.raises(Refused) as caught:
                client.put("common\\a", b"said")
            assert str(caught.value) == "ERROR 2: Not here"
        wait_for(lambda: (tree / "up/logs/127.0.0.1/phone.log").exists(), "the upload")
        assert not (tree / "phone.log").exists()
        assert "the rule at line 5 denies it" in server.log


@pytest.fixture
def configured(tree: Path, tmp_path: Path) -> tuple[Path, Path]:
    config, rules = tmp_path / "owl.toml", tmp_path / "map"
    rules.write_text("r ^x/ common/\n")
    config.write_text(f'root_dir = "{tree}"\nrewrite_file = "{rules}"\n')
    return config, rules


def test_a_reload_reads_the_map_again_and_a_faulty_one_changes_nothing(
    configured: tuple[Path, Path], tmp_path: Path
) -> None:
    config, rules = configured
    with serve_command(None, "--config", str(config), stderr_path=tmp_path / "stderr") as server:

        def reload() -> None:
            said = server.log.count("reload")
            server.signal(signal.SIGHUP)
            wait_for(lambda: server.log.count("reload") > said, "the reload")

        def get(name: str) -> bytes:
            with Client(server.address) as client:
                return client.get(name).payload

        wait_for(lambda: "server started" in server.log, "its first line, behind which signals are taken")
        for _ in range(3):  # by the engine alone, from the second on
            assert get("x/a") == b"common/a"
        rules.write_text("r ^x/ v6/\n")
        reload()
        assert get("x/a") == b"v6/a"
        rules.write_text("r ( v6/\nq")
        reload()
        assert "line 1" in server.log
        assert "line 2" in server.log
        assert get("x/a") == b"v6/a"
        config.write_text(config.read_text().replace("rewrite_file", "# rewrite_file"))
        reload()
        with pytest.raises(Refused):
            get("x/a")


def test_a_faulty_map_ends_the_start_with_its_lines(tree: Path, tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    (tmp_path / "map").write_text("r (\nr ^a b\nq ^ nowhere\n")
    config.write_text(f'root_dir = "{tree}"\nrewrite_file = "{tmp_path / "map"}"\n')
    done = run_command("--config", str(config), "--bind", "127.0.0.1:0")
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert [line.split("map: ")[1].split(":")[0] for line in lines] == ["line 1", "line 3"]


class OfTwoDevices:
    """A source whose names begin with the device that has to be asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def open_now(self, named: Named) -> Later:
        return LATER

    def device_of(self, named: Named, may_wait_on: int | None = None) -> int:
        return int(named.paths[0][:1])

    def open(self, named: Named) -> NotHere:
        self.asked.append(named.paths[0])
        return NotHere(refusal_of_errno(2))

    def close(self) -> None:
        """Nothing is open."""


class ToThree:
    """Rewrites every name to these."""

    names = ("1/a", "1/b", "2/c")

    def apply(self, name: str, host: str, *, is_write: bool) -> Rewritten:
        return Rewritten(self.names, None, "", True)


def test_each_candidate_is_waited_for_in_a_thread_of_its_device(tmp_path: Path) -> None:
    settings = Settings(root_dir=str(tmp_path))
    source: Any = OfTwoDevices()
    decider = FileDecider(settings)
    sources = decider.in_force[1]
    sources.tree.close()
    sources.tree = source
    request = parse_request_untrusted(rrq("any"))
    asked = Meanings(Asked(rrq("any")), request, replace(Generation.of(settings), rewrites=ToThree()))
    asked.sources = sources
    assert asked.first(decider.other_names) is None
    assert decider._open_now(asked) is LATER
    with pytest.raises(Elsewhere) as caught:
        decider._decide_slowly(asked, 1)
    assert caught.value.device == 2
    assert source.asked == [b"1/a", b"1/b"]
    last = decider._decide_slowly(asked, 2)
    assert isinstance(last, RefusedVerdict)
    assert "2/c" in last.cause.why
    assert source.asked == [b"1/a", b"1/b", b"2/c"]
    decider.close()
