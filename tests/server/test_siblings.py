"""A second stage that is asked for without its directory is found beside the first one, and only then."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.server import serve_in_thread, wait_for

from snow_owl_tftp.server import siblings
from snow_owl_tftp.server.siblings import LastFolders

FLOWS = "performance.platform.batch.enable_flows"
SIBLINGS: dict[str, object] = {"names.siblings": ["*.efi", "autoexec.ipxe"]}


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_folder_of_the_last_file_is_remembered_by_client() -> None:
    folders = LastFolders()
    folders.note("192.0.2.1", b"a/b/shimx64.efi")
    folders.note("2001:db8::1", b"c/ipxe.efi")
    assert folders.beside("192.0.2.1", b"grubx64.efi") == b"a/b/grubx64.efi"
    assert folders.beside("2001:db8::1", b"grubx64.efi") == b"c/grubx64.efi"
    assert folders.beside("192.0.2.2", b"grubx64.efi") is None
    folders.note("192.0.2.1", b"d/x")
    assert folders.beside("192.0.2.1", b"grubx64.efi") == b"d/grubx64.efi"
    folders.note("192.0.2.1", b"at-the-root")
    assert folders.beside("192.0.2.1", b"grubx64.efi") is None


def test_folder_is_forgotten_after_minutes() -> None:
    clock = Clock()
    folders = LastFolders(clock)
    folders.note("192.0.2.1", b"a/shimx64.efi")
    clock.now_s += 300
    assert folders.beside("192.0.2.1", b"x") == b"a/x"
    clock.now_s += 1
    assert folders.beside("192.0.2.1", b"x") is None


def test_folders_have_a_bound_and_the_oldest_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "_MAX_CLIENTS", 100)
    folders = LastFolders()
    for number in range(100):
        folders.note(f"c{number}", b"a/x")
    folders.note("c0", b"b/x")  # is the newest now
    for number in range(100, 150):
        folders.note(f"c{number}", b"a/x")
        assert len(folders) == 100
    assert folders.beside("c0", b"y") == b"b/y"
    assert folders.beside("c1", b"y") is None
    assert folders.beside("c149", b"y") == b"a/y"


# ---- over the wire


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in (
        "a/b/shimx64.efi",
        "a/b/grubx64.efi",
        "a/b/notes.txt",
        "c/shimx64.efi",
        "at-root.efi",
        "a/b/at-root.efi",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (root / "a/b/.hidden.efi").write_bytes(b"hidden")
    (tmp_path / "secret.efi").write_bytes(b"secret")
    (root / "a/b/out.efi").symlink_to(tmp_path / "secret.efi")
    return root


def code_of(client: Client, name: str) -> int:
    with pytest.raises(Refused) as caught:
        client.get(name)
    return caught.value.code


@pytest.mark.parametrize("flows", [False, True])
def test_bare_name_is_found_beside_the_client_s_last_file(root: Path, tmp_path: Path, flows: bool) -> None:
    audit = tmp_path / "audit.jsonl"
    settings = {**SIBLINGS, FLOWS: flows, "logging.audit_enabled": True, "logging.audit_file": str(audit)}
    with serve_in_thread(root, settings) as server:
        for number in range(1, 8):  # the later ones have shim by a flow, where there are flows
            with Client(server.address, source=f"127.8.0.{number}") as client:
                assert code_of(client, "grubx64.efi") == 1
                assert client.get("a/b/shimx64.efi").payload == b"a/b/shimx64.efi"
                for name in ("grubx64.efi", "/grubx64.efi", "\\grubx64.efi", "grubx64.efi\r\n", "grubx64.efi"):
                    assert client.get(name).payload == b"a/b/grubx64.efi"
                assert client.get("at-root.efi").payload == b"at-root.efi"
        hits = server.counters()["flow_hits"]
        assert (hits > 0) == flows
        # What was found in this way is never repeated by the engine: of each client's seven files two lie as named.
        assert hits <= 7 * 2
        with Client(server.address, source="127.8.1.1") as stranger:
            assert code_of(stranger, "grubx64.efi") == 1
        wait_for(lambda: "found=a/b/grubx64.efi by=sibling" in server.log, "the line")
        wait_for(lambda: server.server.tally.found == {"sibling": 7 * 5}, "the count")
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    began = [event for event in events if event["event_type"] == "transfer_started" and event.get("by") == "sibling"]
    assert {event["found"] for event in began} == {"a/b/grubx64.efi"}
    assert len(began) == 7 * 5


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("notes.txt", 1),  # no pattern has it
        ("b/grubx64.efi", 1),  # not bare
        (".hidden.efi", 1),
        ("out.efi", 2),  # the link is refused like any other
        ("..", 2),
        ("missing.efi", 1),
    ],
)
def test_nothing_else_is_found_beside_it(root: Path, name: str, code: int) -> None:
    with serve_in_thread(root, SIBLINGS) as server, Client(server.address) as client:
        client.get("a/b/shimx64.efi")
        assert code_of(client, name) == code
        assert client.get("grubx64.efi").payload == b"a/b/grubx64.efi"


def test_last_file_counts_and_a_file_that_was_not_received_does_not(root: Path) -> None:
    with serve_in_thread(root, SIBLINGS) as server, Client(server.address) as client:
        client.get("a/b/shimx64.efi")
        client.probe_size("c/shimx64.efi")
        tally = server.server.tally
        wait_for(lambda: tally.probes_total == 1, "the end of the probe")
        assert client.get("grubx64.efi").payload == b"a/b/grubx64.efi"
        client.get("c/shimx64.efi")
        assert code_of(client, "grubx64.efi") == 1


def test_without_the_setting_nothing_is_found_and_nothing_remembered(root: Path) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        client.get("a/b/shimx64.efi")
        assert code_of(client, "grubx64.efi") == 1


@pytest.mark.parametrize("case", ["lower", "insensitive"])
def test_sibling_is_found_in_another_case_where_that_does_not_count(root: Path, case: str) -> None:
    with serve_in_thread(root, {**SIBLINGS, "names.case": case}) as server, Client(server.address) as client:
        client.get("a/b/shimx64.efi")

        def found() -> Any:
            try:
                return client.get("GRUBX64.EFI").payload
            except Refused:
                return None

        assert wait_for(found, "the index") == b"a/b/grubx64.efi"


def test_netascii_is_found_beside_it_too(root: Path) -> None:
    (root / "a/b/autoexec.ipxe").write_bytes(b"#!ipxe\n" * 50_000)
    with serve_in_thread(root, SIBLINGS) as server, Client(server.address) as client:
        client.get("a/b/shimx64.efi", "netascii")
        assert client.get("autoexec.ipxe", "netascii").payload == b"#!ipxe\r\n" * 50_000
        wait_for(lambda: "found=a/b/autoexec.ipxe by=sibling" in server.log, "the line")
