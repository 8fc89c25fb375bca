"""What else a name may mean, over the wire: case, encodings, the root, what is cut off; by rules, and never a flow."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.operate.test_reload import DEBUG, serve_file
from tests.support.client import Client, Refused
from tests.support.server import ServerThread, serve_in_thread, wait_for
from tests.support.uploads import files_below, serve_uploads
from tests.support.uploads import make_root as make_upload_root

FLOWS = "performance.platform.batch.enable_flows"
LATIN1 = os.fsdecode(b"caf\xe9.cfg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("Boot/BCD", "boot.cfg", "café.bin", LATIN1, "Boot/.Hidden", "pad \n", "sep001.cnf"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    (root / ".Secret").mkdir()
    (root / ".Secret/Key").write_bytes(b"key")
    return root


def answer(server: ServerThread, name: str) -> bytes | int:
    """The content, or the code of the ERROR."""
    with Client(server.address) as client:
        try:
            return client.get(name).payload
        except Refused as refused:
            return refused.code


def indexed(server: ServerThread) -> ServerThread:
    wait_for(lambda: answer(server, "BOOT.cfg") == b"boot.cfg", "the index")
    return server


# ---- case


@pytest.mark.parametrize(
    ("name", "insensitive", "lower"),
    [
        ("Boot/BCD", b"Boot/BCD", b"Boot/BCD"),
        ("\\boot\\bcd", b"Boot/BCD", 1),
        ("/BOOT/BCD", b"Boot/BCD", 1),
        ("BOOT.CFG", b"boot.cfg", b"boot.cfg"),
        ("SEP001.cnf\udcff\x01", b"sep001.cnf", b"sep001.cnf"),
        ("BOOT.CFG\r\n", b"boot.cfg", b"boot.cfg"),
        ("CAFÉ.BIN", "café.bin".encode(), "café.bin".encode()),
        ("boot", 1, 1),
        ("BOOT", 1, 1),
        ("boot/.hidden", 1, 1),
        (".SECRET/KEY", 1, 1),
        ("boot/../.secret/key", 1, 1),
        ("x/../BOOT.CFG", 1, 1),
    ],
)
def test_case_counts_as_the_setting_says(root: Path, name: str, insensitive: bytes | int, lower: bytes | int) -> None:
    if name == "boot":
        insensitive = lower = 1
    with serve_in_thread(root, {"names.case": "insensitive"}) as server:
        assert answer(indexed(server), name) == insensitive
    with serve_in_thread(root, {"names.case": "lower"}) as server:
        assert answer(server, name) == lower
    with serve_in_thread(root) as server:
        assert answer(server, name) == (b"Boot/BCD" if name == "Boot/BCD" else 1)


def test_exact_name_wins_and_several_that_differ_in_case_are_none(root: Path) -> None:
    (root / "BOOT.cfg").write_bytes(b"BOOT.cfg")
    with serve_in_thread(root, {"names.case": "insensitive"}) as server:
        wait_for(lambda: answer(server, "boot/bcd") == b"Boot/BCD", "the index")
        assert answer(server, "boot.cfg") == b"boot.cfg"
        assert answer(server, "BOOT.cfg") == b"BOOT.cfg"
        assert answer(server, "Boot.cfg") == 1
        (root / "BOOT.cfg").unlink()
        wait_for(lambda: answer(server, "Boot.cfg") == b"boot.cfg", "the index, which has one of them now")


def test_file_that_was_just_made_is_found_by_its_name_at_once_and_soon_in_any_case(root: Path) -> None:
    with serve_in_thread(root, {"names.case": "insensitive"}) as server:
        indexed(server)
        for number in range(20):
            (root / f"New{number}").write_bytes(b"new")
            assert answer(server, f"New{number}") == b"new"
        wait_for(lambda: answer(server, "nEW19") == b"new", "the index")


def test_case_counts_where_there_are_more_names_than_allowed(root: Path) -> None:
    with serve_in_thread(root, {"names.case": "insensitive", "names.max_indexed": 3}) as server:
        assert answer(server, "BOOT.cfg") == 1
        assert answer(server, "boot.cfg") == b"boot.cfg"


def test_hidden_file_is_found_in_any_case_where_hidden_files_are_served(root: Path) -> None:
    with serve_in_thread(root, {"names.case": "insensitive", "names.hidden": True}) as server:
        assert answer(indexed(server), ".SECRET/key") == b"key"


def overlaid(root: Path, *roots: str, **settings: object) -> Any:
    for name in ("common/Pxe/Default", "common/both", "common/Shim/shim.efi", "common/Shim/Grub.EFI"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name in ("machines/127.0.0.1/BOTH", "machines/127.0.0.1/own", "machines/127.0.0.1/x", "machines/127.0.0.1/X"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    rules = [{"paths": ["secret/**"], "allow": []}, {"roots": list(roots)}]
    return serve_in_thread(root, {"names.case": "insensitive", "rules": rules, **settings})


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("PXE/default", b"common/Pxe/Default"),
        ("pxe\\DEFAULT\r\n", b"common/Pxe/Default"),
        ("Both", b"machines/127.0.0.1/BOTH"),  # of the first root that has one
        ("both", b"common/both"),  # the exact name goes first
        ("OWN", b"machines/127.0.0.1/own"),
        ("BOOT.CFG", 1),  # of no root of the rule
        ("../BOTH", 2),
        ("Common/PXE/default", 1),
    ],
)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_case_does_not_count_in_the_roots_of_a_rule_either(
    root: Path, name: str, found: bytes | int, is_absolute: bool
) -> None:
    before = f"{root}/" if is_absolute else ""
    with overlaid(root, f"{before}machines/{{address}}", f"{before}missing/{{mac}}", f"{before}common") as server:
        wait_for(lambda: answer(server, "OWN") == b"machines/127.0.0.1/own", "the index")
        assert answer(server, name) == found
        wait_for(lambda: server.server.tally.found["case"] > 0, "the count")


def test_name_of_several_in_one_root_comes_from_the_next(root: Path) -> None:
    (root / "common").mkdir()
    (root / "common/xX").write_bytes(b"of common")
    (root / "machines/127.0.0.1").mkdir(parents=True)
    (root / "machines/127.0.0.1/xx").write_bytes(b"1")
    (root / "machines/127.0.0.1/XX").write_bytes(b"2")
    with overlaid(root, "machines/{address}", "common") as server:
        wait_for(lambda: answer(server, "OWN") == b"machines/127.0.0.1/own", "the index")
        assert answer(server, "Xx") == b"of common"
        assert answer(server, "xx") == b"1"


def test_second_stage_in_another_case_lies_in_the_roots_of_the_rule(root: Path) -> None:
    with overlaid(root, "machines/{address}", "common", **{"names.siblings": ["*.efi"]}) as server:
        wait_for(lambda: answer(server, "OWN") == b"machines/127.0.0.1/own", "the index")
        assert answer(server, "Shim/shim.efi") == b"common/Shim/shim.efi"
        assert answer(server, "grub.efi") == b"common/Shim/Grub.EFI"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lower.CFG", b"common/lower.cfg"),
        ("Sub/Own", b"machines/127.0.0.1/sub/own"),
        (os.fsdecode(b"caf\xe9"), "common/caf\u00e9".encode()),
        ("{root}/lower.cfg", b"common/lower.cfg"),
        ("boot.cfg", 1),  # of root_dir, which is none of the roots
        ("second.efi", b"machines/127.0.0.1/efi/second.efi"),
        ("third.efi", b"common/efi/third.efi"),  # beside it in another root
        ("nobody.lst", 1),
    ],
)
def test_what_else_a_name_may_mean_lies_in_the_roots_of_the_rule(root: Path, name: str, found: bytes | int) -> None:
    for path in ("common/lower.cfg", "common/caf\u00e9", "common/efi/third.efi", "machines/127.0.0.1/sub/own"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    (root / "machines/127.0.0.1/efi").mkdir()
    for path in ("machines/127.0.0.1/efi/first.efi", "machines/127.0.0.1/efi/second.efi"):
        (root / path).write_text(path)
    names = {"case": "lower", "encodings": ["latin-1"], "siblings": ["*.efi"], "optional": ["*.lst"]}
    rules = [{"roots": ["machines/{address}", "common"]}]
    with serve_in_thread(root, {"rules": rules, **{f"names.{key}": value for key, value in names.items()}}) as server:
        assert answer(server, "efi/first.efi") == b"machines/127.0.0.1/efi/first.efi"
        wait_for(lambda: server.server.tally.transfers_total == 1, "its end")
        assert answer(server, name.format(root=root)) == found
        if name.endswith(".lst"):
            assert server.server.tally.refusals == {"optional_missing": 1}


def test_root_that_is_a_link_to_link_targets_is_read_too(root: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/Vmlinuz").write_bytes(b"of the images")
    (root / "linked").symlink_to(tmp_path / "images")
    with overlaid(root, "linked", "common", link_targets=[str(tmp_path / "images")]) as server:
        wait_for(lambda: answer(server, "VMLINUZ") == b"of the images", "the index")


def test_what_was_found_in_a_root_is_asked_about_like_any_name(root: Path) -> None:
    for name in ("common/secret/key", "common/.hidden"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    with overlaid(root, "common") as server:
        wait_for(lambda: answer(server, "BOTH") == b"common/both", "the index")
        assert answer(server, "SECRET/key") == 1  # no rule refuses this name, but there is none; the other one does
        assert answer(server, ".HIDDEN") == 1


@pytest.mark.parametrize("key", [{"names.hidden": True}, {"hidden": "serve"}])
def test_hidden_is_served_by_either_spelling_of_the_key(root: Path, key: dict[str, object]) -> None:
    with serve_in_thread(root, key) as server:
        assert answer(server, ".Secret/Key") == b"key"


# ---- the root, encodings, what is cut off


def test_root_is_stripped_behind_the_name_as_sent(root: Path, tmp_path: Path) -> None:
    with serve_in_thread(root) as server:
        for _ in range(3):
            assert answer(server, f"{root}/boot.cfg") == b"boot.cfg"
            assert answer(server, f"{root}/Boot/BCD\r\n") == b"Boot/BCD"
        assert answer(server, f"{root}/../root/boot.cfg") == 2
        assert answer(server, f"{root}/../../etc/hostname") == 2
        assert answer(server, f"{root}/.Secret/Key") == 1
        assert answer(server, f"{tmp_path}/boot.cfg") == 1
        inner = root / str(root).lstrip("/")
        inner.mkdir(parents=True)
        (inner / "boot.cfg").write_bytes(b"as sent")
        assert answer(server, f"{root}/boot.cfg") == b"as sent"
    with serve_in_thread(root, {"names.strip_root": False}) as server:
        assert answer(server, f"{root}/Boot/BCD") == 1


def test_root_that_is_hidden_itself_is_stripped_all_the_same(tmp_path: Path) -> None:
    root = tmp_path / ".local/tftp"
    root.mkdir(parents=True)
    (root / "x").write_bytes(b"x")
    (root / ".y").write_bytes(b"y")
    with serve_in_thread(root) as server:
        assert answer(server, f"{root}/x") == b"x"
        assert answer(server, f"{root}/.y") == 1


@pytest.mark.parametrize(
    ("encodings", "name", "found"),
    [
        (["latin-1"], os.fsdecode(b"caf\xe9.bin"), "café.bin".encode()),
        (["cp437", "latin-1"], os.fsdecode(b"caf\x82.bin"), "café.bin".encode()),
        (["latin-1"], "café.cfg", b"caf\xe9.cfg"),
        (["latin-1"], LATIN1, b"caf\xe9.cfg"),
        (["cp437"], os.fsdecode(b"caf\xe9.bin"), 1),
        ([], os.fsdecode(b"caf\xe9.bin"), 1),
    ],
)
def test_other_encodings_are_tried_where_a_name_is_not_there(
    root: Path, encodings: list[str], name: str, found: bytes | int
) -> None:
    with serve_in_thread(root, {"names.encodings": encodings}) as server:
        for _ in range(3):
            assert answer(server, name) == found


@pytest.mark.parametrize(
    ("cut", "name", "found"),
    [
        (["ff", "blanks", "controls"], "boot.cfg \n\udcff\x02", b"boot.cfg"),
        (["ff"], "boot.cfg\udcff\x02", b"boot.cfg"),
        (["ff"], "boot.cfg\n", 1),
        (["blanks"], "boot.cfg  ", b"boot.cfg"),
        (["controls"], "boot.cfg\r\n", b"boot.cfg"),
        ([], "boot.cfg\n", 1),
        ([], "pad \n", b"pad \n"),
    ],
)
def test_only_what_the_setting_names_is_cut_off(root: Path, cut: list[str], name: str, found: bytes | int) -> None:
    with serve_in_thread(root, {"names.cut": cut}) as server:
        assert answer(server, name) == found


# ---- flows


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"names.case": "insensitive"}, "boot/bcd"),
        ({"names.case": "lower"}, "BOOT.CFG"),
        ({"names.encodings": ["latin-1"]}, os.fsdecode(b"caf\xe9.bin")),
        ({}, "{root}/boot.cfg"),
    ],
)
def test_what_was_found_otherwise_is_no_flow(root: Path, settings: dict[str, object], name: str) -> None:
    name = name.format(root=root)
    with serve_in_thread(root, {**settings, FLOWS: True}) as server:
        wait_for(lambda: isinstance(answer(server, name), bytes), "the index")
        for _ in range(5):
            assert isinstance(answer(server, name), bytes)
        assert server.counters()["flow_hits"] == 0
        # It appears: what was served before must not be repeated.
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"as sent")
        for _ in range(5):
            assert answer(server, name) == b"as sent"
        assert server.counters()["flow_hits"] > 0


# ---- uploads


@pytest.mark.parametrize("case", ["exact", "lower", "insensitive"])
def test_upload_keeps_its_case_and_encoding_and_loses_the_root(tmp_path: Path, case: str) -> None:
    root = make_upload_root(tmp_path)
    names: dict[str, Any] = {".names.case": case, ".names.encodings": ("latin-1",)}
    with serve_uploads(root, **names) as server, Client(server.address) as client:
        client.put("up/Running.CFG", b"1")
        client.put(f"{root}/up/x", b"2")
        client.put(os.fsdecode(b"up/caf\xe9"), b"3")
    assert files_below(root) == {"up/Running.CFG": b"1", "up/x": b"2", os.fsdecode(b"up/caf\xe9"): b"3"}
    unstripped = serve_uploads(root, **{".names.strip_root": False})
    with unstripped as server, Client(server.address) as client, pytest.raises(Refused):
        client.put(f"{root}/up/y", b"2")


def test_upload_cuts_off_what_the_setting_names(tmp_path: Path) -> None:
    root = make_upload_root(tmp_path)
    with serve_uploads(root, **{".names.cut": ("ff",)}) as server, Client(server.address) as client:
        client.put("up/x \udcff", b"1")
        with pytest.raises(Refused):
            client.put("up/y\n", b"2")
    assert files_below(root) == {"up/x ": b"1"}


# ---- reload


def test_names_are_spelled_otherwise_after_a_reload(root: Path, tmp_path: Path) -> None:
    with serve_file(root, tmp_path, DEBUG) as served, Client(served.server.address) as client:

        def code() -> int:
            try:
                return 0 if client.get("BOOT.CFG").payload == b"boot.cfg" else -1
            except Refused as refused:
                return refused.code

        assert code() == 1
        told = served.reload(f'{DEBUG}[names]\ncase = "insensitive"\n')
        assert [line["changed"] for line in told if "changed" in line] == ["names.case"]
        wait_for(lambda: code() == 0, "the index")
        wait_for(lambda: served.lines("names indexed"), "its line")
        served.reload(f'{DEBUG}[names]\ncase = "lower"\n')
        assert code() == 0
        served.reload(f"{DEBUG}[names]\noptional = ['*.CFG']\n")
        assert code() == 1
        wait_for(lambda: served.lines("optional_missing"), "the line")
        (refused,) = served.reload(f"{DEBUG}[names]\noptional = ['']\n")
        assert "names.optional" in refused["reason"]
        assert code() == 1


def test_root_that_moves_takes_the_index_along(tmp_path: Path) -> None:
    for number in "12":
        (tmp_path / number).mkdir()
        (tmp_path / number / f"File{number}").write_bytes(number.encode())
    (tmp_path / "current").symlink_to("1")
    toml = f'{DEBUG}[names]\ncase = "insensitive"\n'
    with serve_file(tmp_path / "current", tmp_path, toml) as served, Client(served.server.address) as client:

        def payload(name: str) -> bytes:
            try:
                return client.get(name).payload
            except Refused:
                return b""

        wait_for(lambda: payload("FILE1") == b"1", "the index")
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").rename(tmp_path / "current")
        wait_for(lambda: payload("FILE2") == b"2", "the other root")
        assert payload("FILE1") == b""
