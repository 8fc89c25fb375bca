"""Rules over the wire: who gets what, from which directory, under which options, and what nobody gets."""

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused, Silence
from tests.support.server import ServerThread, run_command, serve_command, serve_in_thread, wait_for
from tests.support.uploads import serve_uploads

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.machines import Machine
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider

FILES = {
    "plain": "of the root",
    "common/both": "of common",
    "common/common": "only of common",
    "site/both": "of the site",
    "site/sub/deep": "deep",
    "machines/127.0.0.1/both": "of the machine",
    "secret/key": "secret",
}
ServeRules = Callable[..., ServerThread]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "root"


@pytest.fixture
def serve(root: Path) -> Iterator[ServeRules]:
    with ExitStack() as stack:

        def begin(*rules: Mapping[str, Any], **settings: object) -> ServerThread:
            return stack.enter_context(serve_in_thread(root, {"rules": list(rules), **settings}))

        yield begin


def get(server: ServerThread, name: str, source: str = "", **options: Any) -> str:
    with Client(server.address, source=source) as client:
        return client.get(name, options=options).payload.decode()


def refusal(server: ServerThread, name: str, source: str = "") -> int:
    with Client(server.address, source=source) as client, pytest.raises(Refused) as caught:
        client.get(name)
    return caught.value.code


# ---- who may read what


def test_first_rule_that_fits_decides(serve: ServeRules) -> None:
    server = serve({"paths": ["secret/**"], "allow": []}, {"clients": ["127.0.0.2/31"]}, {"allow": []})
    assert get(server, "plain", "127.0.0.3") == "of the root"
    assert refusal(server, "secret/key", "127.0.0.3") == 2
    assert refusal(server, "plain", "127.0.0.4") == 2


def test_what_no_rule_fits_is_as_without_rules(serve: ServeRules) -> None:
    server = serve({"clients": ["192.0.2.0/24", "2001:db8::/32"], "allow": []})
    assert get(server, "plain") == "of the root"


@pytest.mark.parametrize(
    "name", ["secret/key", "common/../secret/key", "\\secret\\key", "//secret/./key", "secret/key "]
)
def test_no_spelling_of_a_name_passes_a_rule_by(serve: ServeRules, name: str) -> None:
    server = serve({"paths": ["secret/**"], "allow": []})
    assert refusal(server, name) == 2
    assert refusal(server, "../secret/key") == 2


def test_ignored_request_gets_no_answer_at_all(serve: ServeRules) -> None:
    server = serve({"paths": ["secret/**"], "allow": "ignore"})
    for kind in (Opcode.RRQ, Opcode.WRQ):
        with Client(server.address) as client:
            client.request("secret/key", kind=kind)
            with pytest.raises(Silence):
                client.receive(0.5)
    assert get(server, "plain") == "of the root"
    assert server.server.tally.refusals == {"ignored": 2}
    assert "request ignored" in server.log
    assert "rule 1: ignored" in server.log


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", 2), ("127.0.0.2", 1)])
def test_rule_holds_at_one_of_our_addresses(serve: ServeRules, address: str, expected: int) -> None:
    for bind in ("0.0.0.0:0", ["127.0.0.1:0", "127.0.0.2:0"]):
        server = serve({"listen": ["127.0.0.1"], "allow": []}, {"paths": ["x"], "roots": ["common"]}, bind_addr=bind)
        port = next(port for host, port in server.server.addresses if host in ("0.0.0.0", address))
        for _ in range(3):  # the engine must repeat nothing of this
            with Client((address, port)) as client, pytest.raises(Refused) as caught:
                client.get("missing")
            assert caught.value.code == expected
        other = {"127.0.0.1": "127.0.0.2", "127.0.0.2": "127.0.0.1"}[address]
        other_port = next(port for host, port in server.server.addresses if host in ("0.0.0.0", other))
        with Client((other, other_port)) as client, pytest.raises(Refused):
            client.get("missing")


@pytest.mark.parametrize("flows", [False, True])
def test_flow_of_one_client_never_answers_another_who_may_not(serve: ServeRules, flows: bool) -> None:
    server = serve(
        {"clients": ["127.0.0.2"], "allow": []},
        {"clients": ["127.0.0.3"], "roots": ["common"]},
        **{"performance.platform.batch.enable_flows": flows},
    )
    for _ in range(5):
        assert get(server, "plain", "127.0.0.4") == "of the root"
        assert refusal(server, "plain", "127.0.0.2") == 2
        assert refusal(server, "plain", "127.0.0.3") == 1
    assert server.counters()["flow_hits"] == (4 if flows else 0)


def test_what_holds_for_all_is_repeated_by_the_engine(root: Path) -> None:
    rules = [{"paths": ["secret/**"], "clients": ["127.0.0.2"]}, {"roots": ["site", "common"]}]
    flows = {"performance.platform.batch.enable_flows": True, "rules": rules}
    with serve_in_thread(root, flows) as server:
        for _ in range(3):
            assert get(server, "both") == "of the site"
        assert server.counters()["flow_hits"] == 2
        for _ in range(3):
            assert get(server, "common") == "only of common"  # a file of this name may appear in the site
        assert server.counters()["flow_hits"] == 2
        (root / "site/common").write_text("of the site now")
        assert get(server, "common") == "of the site now"


# ---- where it comes from


def test_file_comes_from_the_first_root_that_has_it(serve: ServeRules) -> None:
    server = serve({"roots": ["machines/{address}", "site", "common"]})
    assert get(server, "both") == "of the machine"
    assert get(server, "both", "127.0.0.9") == "of the site"
    assert get(server, "sub/deep") == "deep"
    assert get(server, "common") == "only of common"
    assert refusal(server, "plain") == 1


def test_netascii_and_tsize_are_those_of_the_root_that_has_it(serve: ServeRules, root: Path) -> None:
    (root / "common/text").write_text("a\nb\n")
    server = serve({"roots": ["machines/{address}", "common"]})
    with Client(server.address) as client:
        got = client.get("text", mode="netascii", options={"tsize": 0})
        assert (got.payload, got.oack["tsize"]) == (b"a\r\nb\r\n", "6")
        assert client.get("both", options={"tsize": 0}).oack["tsize"] == str(len("of the machine"))


ESCAPES = ["../plain", "../../plain", "link", "absolute", "up/plain", "../secret/key", "sub/../../plain", "..\\plain"]


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_leads_out_of_a_root(serve: ServeRules, root: Path, name: str) -> None:
    own = root / "machines/127.0.0.1"
    for directory in (own, root / "site"):
        (directory / "link").symlink_to(root / "plain")
        (directory / "absolute").symlink_to(root / "plain")
        (directory / "up").symlink_to("../..")
    for roots in (["machines/{address}"], ["site"], ["machines/{address}", "site"]):
        assert refusal(serve({"roots": roots}), name) in (1, 2)


class Claims:
    """A machine whose MAC, serial number and name are whatever the client says."""

    def __init__(self, value: str) -> None:
        self.machine = Machine(name=value, mac=value, serial=value, group=value, uuid=value, vars={"rack": value})

    def find(self, asker: Asker, paths: tuple[bytes, ...] = ()) -> Machine | None:
        return self.machine


def serve_machine(root: Path, machine: str, *rules: Mapping[str, Any]) -> Any:
    settings = override(Settings(), {"root_dir": str(root), "rules": list(rules)})
    policy = Policy(settings.write_config, machines=Claims(machine), rules=settings.rules)
    decider = FileDecider(settings, generation=replace(Generation.of(settings), policy=policy))
    return serve_in_thread(root, decider=decider)


VARIABLES = ["mac", "mac_plain", "mac_dashes", "serial", "name", "group", "uuid", "rack"]


@pytest.mark.parametrize(
    "value", ["..", ".", "../secret", "/", "/etc", "a/../..", "", ".ssh", "..\\secret", "x\0y", "\n"]
)
def test_no_variable_leads_out_of_what_its_root_lies_in(root: Path, value: str) -> None:
    (root / "machines/key").write_text("not of a machine")
    roots = [f"machines/{{{name}}}" for name in VARIABLES] + [f"machines/127.0.0.1/{{{name}}}" for name in VARIABLES]
    with serve_machine(root, value, {"roots": roots}) as server:
        for name in ("plain", "secret/key", "key", "passwd", "both"):
            assert refusal(server, name) == 1


def test_machine_has_a_root_of_its_own_by_each_variable(root: Path) -> None:
    for name in VARIABLES:
        (root / f"own/{name}/127.0.0.9").mkdir(parents=True)
        (root / f"own/{name}/127.0.0.9/file").write_text(name)
        with serve_machine(root, "127.0.0.9", {"roots": [f"own/{name}/{{{name}}}"]}) as server:
            assert get(server, "file") == name


# Whose file it is counts where the server is not root (tests/content/test_overlay.py).
@pytest.mark.parametrize("require", ["world_readable", *(["owned"] if os.geteuid() == 0 else [])])
@pytest.mark.parametrize("roots", [[], ["site", "common"]])
def test_file_that_is_not_as_a_rule_requires_names_the_rule(root: Path, require: str, roots: list[str]) -> None:
    for path in (root / "common/both", root / "both"):
        path.write_text("not for all")
        path.chmod(0o600)
    (root / "site/both").unlink()
    audit = root.parent / "audit.json"
    rules = [{"clients": ["127.0.0.2"], "require": require, "roots": roots}, {"roots": roots}]
    told = {"logging.audit_enabled": True, "logging.audit_file": str(audit), "rules": rules}
    with serve_in_thread(root, told) as server:
        assert refusal(server, "both", "127.0.0.2") == 2
        assert get(server, "both", "127.0.0.3") == "not for all"
        assert refusal(server, "both", "127.0.0.2") == 2
        wait_for(lambda: server.server.tally.by_rule == {1: 2}, "the count")
        wait_for(lambda: audit.read_text().count('"rule":1') == 2, "the events")
    assert server.log.count('why="rule 1: not everybody may read the file (require)"') == 2


# ---- hidden names


def hide(root: Path) -> None:
    for name in (".git/config", ".well-known/Key", "machines/.x/file", "common/.own"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


@pytest.mark.parametrize("flows", [False, True])
def test_hidden_name_is_there_where_a_rule_says_so(serve: ServeRules, root: Path, flows: bool) -> None:
    hide(root)
    server = serve(
        {"clients": ["127.0.0.2"], "paths": [".well-known/**"], "hidden": True},
        {"clients": ["127.0.0.3"], "roots": ["common"], "hidden": True},
        {"clients": ["127.0.0.4"]},
        {"clients": ["127.0.0.5"], "allow": [], "hidden": True},
        {"clients": ["127.0.0.7/32"], "hidden": True},
        {"paths": [".well-known/free"], "hidden": True},
        **{"performance.platform.batch.enable_flows": flows},
    )
    (root / ".well-known/free").write_text("for all")
    for _ in range(3):
        assert get(server, ".well-known/Key", "127.0.0.2") == ".well-known/Key"
        assert get(server, ".own", "127.0.0.3") == "common/.own"
        for source in ("127.0.0.3", "127.0.0.4", "127.0.0.6"):
            assert refusal(server, ".well-known/Key", source) == 1
        assert refusal(server, ".git/config", "127.0.0.2") == 1
        assert refusal(server, ".well-known/../.git/config", "127.0.0.2") == 1
        assert refusal(server, ".well-known/Key", "127.0.0.5") == 2
        assert get(server, ".well-known/Key", "127.0.0.7") == ".well-known/Key"
        assert get(server, ".well-known/free", "127.0.0.8") == get(server, ".well-known/free", "127.0.0.9") == "for all"
    assert "a part of the name begins with a dot" in server.log


def test_hidden_name_is_not_there_where_a_rule_says_so(serve: ServeRules, root: Path) -> None:
    hide(root)
    server = serve({"paths": [".git/**"], "hidden": False}, **{"names.hidden": True})
    assert get(server, ".well-known/Key") == ".well-known/Key"
    assert refusal(server, ".git/config") == 1
    assert server.server.tally.by_rule == {1: 1}


def test_hidden_name_of_a_rule_is_found_in_any_case(serve: ServeRules, root: Path) -> None:
    hide(root)
    server = serve({"paths": [".well-known/**", ".WELL-KNOWN/**"], "hidden": True}, **{"names.case": "insensitive"})
    assert wait_for(lambda: get_or_none(server, ".WELL-KNOWN/key"), "the index") == ".well-known/Key"
    assert refusal(server, ".GIT/config") == 1


def get_or_none(server: ServerThread, name: str) -> str | None:
    try:
        return get(server, name)
    except Refused:
        return None


def test_hidden_name_is_uploaded_where_a_rule_says_so(root: Path) -> None:
    rules = ({"clients": ["127.0.0.2"], "hidden": True}, {"clients": ["127.0.0.4"], "paths": [".y"], "hidden": False})
    with uploads(root, *rules) as server:
        put(server, ".x", source="127.0.0.2")
        assert (root / ".x").read_bytes() == b"new"
        assert refused_put(server, ".y", source="127.0.0.3") == 2
        assert refused_put(server, ".y", source="127.0.0.4") == 2
    with uploads(root, *rules, **{"names.hidden": True}) as server:
        put(server, ".y", source="127.0.0.3")
        assert refused_put(server, ".y", source="127.0.0.4") == 2
        assert server.server.tally.by_rule == {2: 1}


# ---- under which options


def test_options_are_those_of_the_rule(serve: ServeRules, root: Path) -> None:
    (root / "big").write_bytes(random.Random(1).randbytes(5000))
    sick = {"max_blksize_bytes": 600, "max_windowsize_blocks": 2, "refuse": ["tsize", "timeout"]}
    server = serve({"clients": ["127.0.0.2"], "options": sick})
    asked = {"blksize": 1428, "windowsize": 8, "tsize": 0, "timeout": 3}
    with Client(server.address, source="127.0.0.2") as client:
        assert client.get("big", options=asked).oack == {"blksize": "600", "windowsize": "2"}
    with Client(server.address) as client:
        assert client.get("big", options=asked).oack == {k: str(v) for k, v in (asked | {"tsize": 5000}).items()}
    refuse_all = {"refuse": list(asked)}
    with Client(serve({"options": refuse_all}).address) as client:
        got = client.get("big", options=asked)
        assert (got.oack, got.blksize_bytes, len(got.payload)) == ({}, 512, 5000)


# ---- uploads


def put(server: ServerThread, name: str, payload: bytes = b"new", source: str = "") -> None:
    with Client(server.address, source=source) as client:
        client.put(name, payload)


def refused_put(server: ServerThread, name: str, source: str = "") -> int:
    with pytest.raises(Refused) as caught:
        put(server, name, source=source)
    return caught.value.code


def uploads(root: Path, *rules: Mapping[str, Any], **settings: object) -> Any:
    usual: dict[str, object] = {"allowed_patterns": ("**",), ".rules": list(rules)}
    return serve_uploads(root, **(usual | settings))


def test_uploads_obey_the_same_rules(root: Path) -> None:
    rules = (
        {"clients": ["127.0.0.2"], "paths": ["up/**"], "allow": ["write"]},
        {"clients": ["127.0.0.3"], "allow": ["read", "write", "overwrite"]},
        {"clients": ["127.0.0.4"], "allow": ["read"]},
        {"clients": ["127.0.0.5"], "allow": []},
    )
    (root / "up").mkdir()
    with uploads(root, *rules) as server:
        put(server, "up/a", b"first", "127.0.0.2")
        assert refused_put(server, "up/a", "127.0.0.2") == 6  # no "overwrite"
        assert refusal(server, "up/a", "127.0.0.2") == 2  # no "read"
        put(server, "up/a", b"second", "127.0.0.3")
        assert get(server, "up/a", "127.0.0.3") == "second"
        assert refused_put(server, "up/a", "127.0.0.4") == 2
        assert refused_put(server, "up/a", "127.0.0.5") == 2


@pytest.mark.parametrize("on_existing", ["refuse", "replace"])
def test_file_that_may_not_be_replaced_names_the_rule(root: Path, on_existing: str) -> None:
    audit = root.parent / "audit.json"
    told = {"logging.audit_enabled": True, "logging.audit_file": str(audit), "logging.level": "info"}
    rules = ({"clients": ["127.0.0.2"], "allow": ["write"]}, {"clients": ["127.0.0.3"]})
    with uploads(root, *rules, on_existing=on_existing, **{f".{key}": value for key, value in told.items()}) as server:
        assert refused_put(server, "plain", "127.0.0.2") == 6
        wait_for(lambda: server.server.tally.by_rule == {1: 1}, "the count")
        if on_existing == "refuse":
            assert refused_put(server, "plain", "127.0.0.3") == 6  # by the settings
        wait_for(lambda: "write_request_denied" in audit.read_text(), "the event")
        assert server.server.tally.by_rule == {1: 1}
    assert 'rule 1: it has no \\"overwrite\\"' in server.log
    (event, *others) = [json.loads(line) for line in audit.read_text().splitlines() if "write_request_denied" in line]
    assert (event["error_code"], event["rule"]) == (6, 1)
    assert not any("rule" in other for other in others)


def test_upload_goes_to_the_first_root(root: Path) -> None:
    rule = {"allow": ["read", "write", "overwrite"], "roots": ["machines/{address}", "common"]}
    with uploads(root, rule) as server:
        put(server, "both", b"uploaded")
        assert (root / "machines/127.0.0.1/both").read_bytes() == b"uploaded"
        assert (root / "common/both").read_text() == "of common"
        assert get(server, "both") == "uploaded"
        put(server, "common", b"mine")
        assert (root / "machines/127.0.0.1/common").read_bytes() == b"mine"
        assert refused_put(server, "file", "127.0.0.9") == 1  # it has no directory, and a request makes none
        assert not (root / "machines/127.0.0.9").exists()
        (root / "machines/127.0.0.9").mkdir()
        put(server, "file", b"now", "127.0.0.9")
        assert (root / "machines/127.0.0.9/file").read_bytes() == b"now"


def test_upload_leaves_no_root(root: Path) -> None:
    (root / "machines/127.0.0.1/out").symlink_to("../../common")
    (root / "machines/127.0.0.1/file").symlink_to(root / "plain")
    (root / "machines/127.0.0.2").symlink_to(root.parent)
    rule = {"allow": ["read", "write", "overwrite"], "roots": ["machines/{address}"]}
    before = sorted(root.parent.rglob("*"))
    with uploads(root, rule, create_directories=True) as server:
        for name in ("../x", "../../common/x", "out/x", "file", "..\\x", "out"):
            assert refused_put(server, name) in (1, 2, 6)
        assert refused_put(server, "x", "127.0.0.2") in (1, 2)
        assert [path for path in sorted(root.parent.rglob("*")) if path.suffix != ".log"] == before


def test_root_of_an_upload_that_was_made_anew_is_found(root: Path) -> None:
    with uploads(root, {"allow": ["write", "overwrite"], "roots": ["common"]}) as server:
        put(server, "x", b"1")
        (root / "common").rename(root / "old")
        (root / "common").mkdir()
        put(server, "x", b"2")
    assert (root / "old/x").read_bytes() == b"1"
    assert (root / "common/x").read_bytes() == b"2"


def test_roots_of_uploads_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snow_owl_tftp.server.upload_roots._MAX_AREAS", 2)
    for number in range(1, 7):
        (root / f"machines/127.0.1.{number}").mkdir()
    with uploads(root, {"allow": ["write"], "roots": ["machines/{address}"]}) as server:
        for number in range(1, 7):
            put(server, "x", b"x", f"127.0.1.{number}")
        with ExitStack() as running:
            for number in (1, 2):
                client = running.enter_context(Client(server.address, source=f"127.0.1.{number}"))
                client.request("y", kind=Opcode.WRQ)
                client.receive(5)
            assert refused_put(server, "y", "127.0.1.3") == 0  # both places are in use


def test_leftovers_of_a_crash_in_a_root_of_a_rule_are_removed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    left = outside / ".snow-owl-0123456789abcdef.part"
    left.write_bytes(b"left")
    with uploads(root, {"allow": ["write"], "roots": [str(outside)]}) as server:
        put(server, "x")
        assert [path.name for path in outside.iterdir()] == ["x"]


# ---- what is told, and a reload


def test_log_and_audit_name_the_rule(root: Path) -> None:
    rules = [{"paths": ["a"], "allow": []}, {"paths": ["b"], "allow": "ignore"}, {"paths": ["c"], "roots": ["{mac}"]}]
    audit = root.parent / "audit.json"
    told = {"logging.audit_enabled": True, "logging.audit_file": str(audit), "rules": rules}
    with serve_in_thread(root, told) as server:
        assert (refusal(server, "a"), refusal(server, "c")) == (2, 1)
        with Client(server.address) as client:
            client.request("b")
        wait_for(lambda: audit.read_text().count("read_denied") == 3, "three events")
        assert server.server.tally.by_rule == {1: 1, 2: 1, 3: 1}
        assert "rule 1:1" in server.server.tally.figures()["refused_by"]
    assert [f'"rule":{number}' in audit.read_text() for number in (1, 2, 3)] == [True] * 3
    for line in ("rule 1", "rule 2: ignored", "rule 3: of none of its roots all variables are known"):
        assert line in server.log


TOML = """
[[rules]]
paths = ["secret/**"]
allow = []

[[rules]]
roots = [{roots}]
"""


def test_reload_swaps_all_rules_at_once_while_clients_load(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    config.write_text(TOML.format(roots='"site"'))
    stop, asks_late, seen, errors = threading.Event(), threading.Event(), set(), []

    def load(address: tuple[str, int]) -> None:
        try:
            with Client(address) as client:
                while not stop.is_set():
                    is_late = asks_late.is_set()  # before the request: one that was sent earlier may be answered later
                    payload = client.get("both").payload
                    if is_late:
                        seen.add(payload)
                    with pytest.raises(Refused):
                        client.get("secret/key")
        except BaseException as error:
            errors.append(error)

    with serve_command(root, "--config", str(config), stderr_path=tmp_path / "stderr") as server:

        def reload(text: str, line: str) -> None:
            before = server.log.count(line)
            config.write_text(text)
            server.signal(signal.SIGHUP)
            wait_for(lambda: server.log.count(line) > before or errors, line)

        threads = [threading.Thread(target=load, args=(server.address,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                reload(TOML.format(roots='"common"'), "settings reloaded")
                reload(TOML.format(roots='"machines/{address}", "site"'), "settings reloaded")
            asks_late.set()
            bad = TOML.format(roots='"nowhere"')
            reload(bad, "reload refused")
            reload(TOML.format(roots='"a//{"'), "reload refused")
            reload('[[rules]]\nclients = ["10.0.0.1/8"]\n', "reload refused")
            wait_for(lambda: len(seen) > 0, "answers after the bad files")
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert not errors
        assert seen == {b"of the machine"}
        assert "rules[2].roots: " in server.log
        assert "nowhere: No such file or directory" in server.log
        assert "rules[1].clients: " in server.log


def test_log_below_a_root_of_a_rule_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "other").mkdir()
    config = tmp_path / "owl.toml"
    for roots in (f'["{tmp_path}/other"]', f'["{tmp_path}/other/{{mac}}"]', f'["{tmp_path}/other/x{{mac}}/y"]'):
        config.write_text(f'[logging]\nfile = "{tmp_path}/other/log"\n[[rules]]\nroots = {roots}\n')
        ended = run_command(str(root), "--config", str(config), "--bind", "127.0.0.1:0")
        assert (ended.returncode, "logging.file" in ended.stderr) == (2, True), ended.stderr


# ---- as other servers do it (docs/rules.md)


def test_unique_root_of_dnsmasq(serve: ServeRules) -> None:
    server = serve({"roots": ["machines/{address}", "."]})
    assert get(server, "both") == "of the machine"
    assert get(server, "plain") == get(server, "plain", "127.0.0.9") == "of the root"
    assert refusal(server, "both", "127.0.0.9") == 1


def test_unique_root_of_dnsmasq_by_mac(root: Path) -> None:
    (root / "52-54-00-12-34-56").mkdir()
    (root / "52-54-00-12-34-56/plain").write_text("of the MAC")
    with serve_machine(root, "52:54:00:12:34:56", {"roots": ["{mac_dashes}", "."]}) as server:
        assert (get(server, "plain"), get(server, "secret/key")) == ("of the MAC", "secret")


def test_several_directories_of_hpa_and_its_rule_of_what_everybody_may_read(root: Path) -> None:
    (root / "site/both").chmod(0o640)
    shown = str(root).lstrip("/")
    paths = [f"{shown}/site/**", f"{shown}/common/**"]
    rules = [{"paths": paths, "require": "world_readable"}, {"allow": []}]
    with serve_in_thread(root, {"root_dir": "/", "rules": rules}) as server:
        assert get(server, f"{root}/common/both") == "of common"
        assert get(server, f"{root}/site/sub/deep") == "deep"
        assert refusal(server, f"{root}/site/both") == 2
        assert refusal(server, f"{root}/plain") == 2
        assert refusal(server, f"{root}/site/../plain") == 2
        assert refusal(server, "/etc/passwd") == 2


def test_link_on_the_way_to_a_root_leads_nobody_out(root: Path) -> None:
    """The part of a root that the operator has written may be a link, too, that somebody else has put there."""
    outside = root.parent / "outside"
    (outside / "127.0.0.1").mkdir(parents=True)
    for name in ("both", "127.0.0.1/both"):
        (outside / name).write_text("OUTSIDE")
    (root / "way").symlink_to(outside)
    (root / "beside").symlink_to("machines")
    before = sorted(outside.rglob("*"))
    for roots in (["way/{address}"], ["way/{address}", "way/127.0.0.9/{address}", "common"]):
        with uploads(root, {"allow": ["read", "write", "overwrite"], "roots": roots}) as server:
            with Client(server.address) as client, pytest.raises(Refused) as refused:
                client.get("both")
            assert refused.value.code == 2
            assert refused_put(server, "both") in (1, 2)
            assert refused_put(server, "new") in (1, 2)
    with uploads(root, {"allow": ["read", "write"], "roots": ["beside/{address}"]}) as server:
        assert get(server, "both") == "of the machine"
        put(server, "new", b"mine")
    assert (root / "machines/127.0.0.1/new").read_bytes() == b"mine"
    assert sorted(outside.rglob("*")) == before
    assert {path.read_text() for path in before if path.is_file()} == {"OUTSIDE"}


# ---- by chance


@pytest.mark.parametrize("seed", range(20))
def test_no_name_that_chance_makes_gets_a_byte_from_outside(root: Path, seed: int) -> None:
    """Through rules, overlay and variables at once; what is outside of the roots says so in its content."""
    rng = random.Random(seed)
    for path in (root / "plain", root / "secret/key", root.parent / "outside"):
        path.write_text("OUTSIDE")
    own = root / "machines/127.0.0.1"
    targets = [
        "../..",
        "../../plain",
        str(root / "secret"),
        "..",
        "/",
        "/proc/self/cwd",
        "/proc/self/root",
        "loop",
        "both",
    ]
    for number, target in enumerate(targets):
        for directory in (own, root / "site", root / "site/sub"):
            (directory / f"l{number}").symlink_to(target)
    parts = [
        "..",
        ".",
        "",
        "both",
        "sub",
        "plain",
        "secret",
        "key",
        "outside",
        "..\\..",
        "machines",
        "root",
        "\udcff",
        "x" * 200,
    ]
    parts += [f"l{number}" for number in range(len(targets))]
    values = ["..", "127.0.0.1", "../secret", "", "l0", "a/b", "\0", "."]
    rules = [
        {"paths": ["secret/**"], "allow": []},
        {"roots": ["machines/{serial}", "machines/{address}", "site/{name}", "site"]},
    ]
    with serve_machine(root, rng.choice(values), *rules) as server, Client(server.address) as client:
        for _ in range(150):
            name = rng.choice(["/", "", "\\"]) + rng.choice(["/", "\\", "//"]).join(
                rng.choices(parts, k=rng.randint(1, 5))
            )
            try:
                payload = client.get(name or "x").payload
            except Refused:
                continue
            assert b"OUTSIDE" not in payload
            assert payload.decode() in FILES.values(), name


def test_roots_of_rules_are_followed_while_the_server_works(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    config.write_text('[[rules]]\npaths = ["both"]\nroots = ["site"]\n')
    with serve_command(root, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        with Client(server.address) as client:
            assert client.get("both").payload == b"of the site"
            (root / "site").rename(root / "site.old")
            (root / "site").mkdir()
            (root / "site/both").write_text("of the new site")
            wait_for(lambda: client.get("both").payload == b"of the new site", "the new directory")
            assert client.get("plain").payload == b"of the root"
        wait_for(lambda: "roots of rules lead elsewhere now" in server.log, "the line about it")


def test_missing_directory_above_variables_is_warned_of_and_used_once_it_is_there(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "owl.toml"
    config.write_text(f'[[rules]]\nroots = ["{tmp_path}/later/{{address}}", "common"]\n')
    with serve_command(root, "--config", str(config), stderr_path=tmp_path / "stderr") as server:
        assert f"missing={tmp_path}/later" in server.log.replace('"', "").replace("'", "")
        with Client(server.address) as client:
            assert client.get("both").payload == b"of common"
            (tmp_path / "later/127.0.0.1").mkdir(parents=True)
            (tmp_path / "later/127.0.0.1/both").write_text("later")
            wait_for(lambda: client.get("both").payload == b"later", "the directory that was made")
