"""Names over the wire: what is no UTF-8, what firmware hangs behind a name, what is hidden; and their log lines."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from tests.content.test_links import exchange
from tests.support.client import Client, Refused
from tests.support.server import serve_in_thread, wait_for
from tests.support.uploads import files_below, serve_uploads
from tests.support.uploads import make_root as make_upload_root

LATIN1 = os.fsdecode(b"caf\xe9.cfg")
AS_SENT = os.fsdecode(b"netboot.xyz.efi\xff")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / ".git").mkdir(parents=True)
    (root / "netboot.xyz.efi").write_bytes(b"plain")
    (root / LATIN1).write_bytes(b"latin-1")
    (root / ".git/config").write_bytes(b"[remote]")
    (root / ".secret").write_bytes(b"x")
    (root / "alias").symlink_to(".secret")
    return root


def refused(client: Client, name: str) -> Refused:
    with pytest.raises(Refused) as caught:
        client.get(name)
    return caught.value


@pytest.mark.parametrize("audited", [False, True])
def test_name_that_is_no_utf8_is_served_again_and_again_and_logged_escaped(
    root: Path, tmp_path: Path, audited: bool
) -> None:
    audit = tmp_path / "audit.jsonl"
    settings = {"logging.audit_enabled": audited, "logging.audit_file": str(audit), "logging.format": "json"}
    with serve_in_thread(root, settings) as server, Client(server.address) as client:
        for _ in range(4):  # the later ones by a flow, where there are flows
            assert client.get(LATIN1, options={"tsize": 0}).payload == b"latin-1"
        assert refused(client, os.fsdecode(b"missing\xe9")).code == 1
        wait_for(lambda: "request refused" in server.log, "the refusal in the log")
    for path in [server.log_path, *([audit] if audited else [])]:
        lines = path.read_bytes().decode().splitlines()  # strict: valid UTF-8
        assert all(json.loads(line) for line in lines)
        assert any(r"caf\\xe9.cfg" in line for line in lines)
        assert not any(r"\ud" in line for line in lines)


def test_text_log_escapes_what_is_no_utf8(root: Path) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        client.get(LATIN1)
        wait_for(lambda: r"caf\xe9.cfg" in server.log_path.read_bytes().decode(), "the name in the log")


@pytest.mark.parametrize("tail", ["\udcff", "\udcff\x06\x04junk", "\r\n", " \x01\x7f"])
def test_end_of_a_name_is_cut_off_only_while_no_file_has_the_name_as_sent(root: Path, tail: str) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        name = f"netboot.xyz.efi{tail}"
        for _ in range(3):
            assert client.get(name).payload == b"plain"
        # It appears: what was served before, and may have become a flow, must not be repeated.
        (root / name).write_bytes(b"as sent")
        for _ in range(3):
            assert client.get(name).payload == b"as sent"
        (root / name).unlink()
        assert client.get(name).payload == b"plain"


def test_option_that_is_no_utf8_refuses_no_file(root: Path) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        got = client.get("netboot.xyz.efi", options={"x\udce9": "\udcfe", "tsize": 0})
        assert (got.payload, got.oack) == (b"plain", {"tsize": "5"})


# ---- uploads


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"up/caf\xe9.cfg", b"up/caf\xe9.cfg"),
        (b"up/running.cfg\xff", b"up/running.cfg"),
        (b"up/running.cfg\r\n", b"up/running.cfg"),
        (b"up/running.cfg\xff\x01junk", b"up/running.cfg"),
    ],
)
def test_upload_is_stored_under_the_bytes_that_were_meant(tmp_path: Path, sent: bytes, stored: bytes) -> None:
    root = make_upload_root(tmp_path)
    with serve_uploads(root) as server, Client(server.address) as client:
        client.put(os.fsdecode(sent), b"payload")
        assert files_below(root) == {os.fsdecode(stored): b"payload"}
        assert client.get(os.fsdecode(sent)).payload == b"payload"


@pytest.mark.parametrize("sent", [b"up/running.cfg\xff", b"up/running.cfg\n"])
def test_upload_replaces_the_file_of_the_name_as_sent(tmp_path: Path, sent: bytes) -> None:
    root = make_upload_root(tmp_path)
    (root / os.fsdecode(sent)).write_bytes(b"old")
    with serve_uploads(root) as server, Client(server.address) as client:
        client.put(os.fsdecode(sent), b"new")
        assert files_below(root) == {os.fsdecode(sent): b"new"}


@pytest.mark.parametrize("name", ["up/a\nb", "up/\x1b[2J", "up/a\x9bb"])
def test_upload_makes_no_file_with_a_control_character_in_its_name(tmp_path: Path, name: str) -> None:
    root = make_upload_root(tmp_path)
    with serve_uploads(root) as server, Client(server.address) as client:
        with pytest.raises(Refused) as caught:
            client.put(name, b"payload")
        assert caught.value.code == 2
        assert files_below(root) == {}


# ---- hidden names


@pytest.mark.parametrize("name", [".secret", ".git/config", "/.git/config", "\\.git\\config", "./.git/../.git/config"])
def test_hidden_name_is_not_there_and_the_log_says_why(root: Path, name: str) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        error = refused(client, name)
        assert (error.code, error.text) == (1, "File not found")
        line = wait_for(
            lambda: [line for line in server.log.splitlines() if "request refused" in line], "the refusal in the log"
        )[0]
        assert "begins with a dot" in line
        assert 'hidden = \\"serve\\"' in line


def test_hidden_name_is_served_where_the_setting_says_so(root: Path) -> None:
    with serve_in_thread(root, {"hidden": "serve"}) as server, Client(server.address) as client:
        assert client.get(".git/config").payload == b"[remote]"


def test_link_that_shows_what_is_hidden_is_followed(root: Path) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        assert client.get("alias").payload == b"x"


def test_hidden_name_is_not_uploaded_unless_the_setting_says_so(tmp_path: Path) -> None:
    root = make_upload_root(tmp_path)
    with serve_uploads(root) as server, Client(server.address) as client:
        with pytest.raises(Refused) as caught:
            client.put("up/.profile", b"payload")
        assert caught.value.code == 2
    with serve_uploads(root, **{".hidden": "serve"}) as server, Client(server.address) as client:
        client.put("up/.profile", b"payload")
    assert files_below(root) == {"up/.profile": b"payload"}


# ---- what stands in the way


def test_refusal_of_a_link_is_logged_with_the_link_and_the_errno(root: Path) -> None:
    (root / "out").symlink_to("/etc/hostname")
    with serve_in_thread(root) as server, Client(server.address) as client:
        assert refused(client, "out").code == 2
        wait_for(lambda: "the link out -> /etc/hostname leads out of the root (EXDEV)" in server.log, "the reason")


def test_upload_through_a_link_that_leads_out_is_logged_with_the_link(tmp_path: Path) -> None:
    root = make_upload_root(tmp_path)
    (root / "up/out").symlink_to(tmp_path)
    with serve_uploads(root, **{".link_targets": (str(tmp_path),)}) as server, Client(server.address) as client:
        with pytest.raises(Refused) as caught:
            client.put("up/out/file", b"payload")
        assert caught.value.code == 2
        wait_for(lambda: "leads out of the root (EXDEV)" in server.log, "the reason")
    assert not (tmp_path / "file").exists()


def test_links_into_the_root_and_to_a_named_place_are_served(root: Path, tmp_path: Path) -> None:
    """Debian's layout, and what installers write; asked for often enough that flows would take part."""
    place = tmp_path / "PXELINUX"
    place.mkdir()
    (place / "pxelinux.0").write_bytes(b"loader")
    (root / "pxelinux.0").symlink_to(place / "pxelinux.0")
    (root / "absolute.efi").symlink_to(root / "netboot.xyz.efi")
    with serve_in_thread(root, {"link_targets": [str(place)]}) as server, Client(server.address) as client:
        for _ in range(4):
            assert client.get("pxelinux.0").payload == b"loader"
            assert client.get("absolute.efi").payload == b"plain"
        (root / "absolute.efi").unlink()
        (root / "absolute.efi").symlink_to("/etc/hostname")
        assert refused(client, "absolute.efi").code == 2


@pytest.mark.parametrize("go", ["releases/7", "{root}/releases/7"])
def test_no_race_of_renames_serves_what_lies_outside(root: Path, tmp_path: Path, go: str) -> None:
    """The engine repeats what it may while a directory and a link out of the root change names."""
    (root / "releases/7").mkdir(parents=True)
    (root / "releases/7/file").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"secret")
    (root / "releases/bait").symlink_to(tmp_path / "outside")
    (root / "go").symlink_to(go.format(root=root))
    is_over = threading.Event()

    def swap() -> None:
        while not is_over.is_set():
            exchange(root / "releases/7", root / "releases/bait")

    with serve_in_thread(root, {"logging.level": "error"}) as server, Client(server.address) as client:
        swapper = threading.Thread(target=swap)
        swapper.start()
        served = denied = 0
        try:
            deadline_s = time.monotonic() + 20
            while (served < 50 or denied < 50) and time.monotonic() < deadline_s:
                for name in ("go/file", "releases/7/file"):
                    try:
                        assert client.get(name).payload == b"inside"
                        served += 1
                    except Refused:
                        denied += 1
        finally:
            is_over.set()
            swapper.join()
    assert min(served, denied) >= 50, (served, denied)
