"""Several directories as one tree: the first that has a file, each confined by itself, and nothing that waits."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.descriptors import descriptors_at_rest

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.overlay import Overlay, OverlayPlan
from snow_owl_tftp.content.source import LATER, NotHere
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.decision import ReadDecision, Require, RootPath

MACHINE = RootPath("", b"machines/aa")
SITE, COMMON = RootPath("site"), RootPath("common")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "machines/aa/both",
        "machines/aa/own",
        "site/both",
        "site/site",
        "common/both",
        "common/common",
        "secret",
    ):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "root"


Make = Callable[..., Overlay]


@pytest.fixture
def make(root: Path) -> Iterator[Make]:
    def make(
        *directories: str, above: tuple[str, ...] = ("",), targets: tuple[str, ...] = (), size: int = 0
    ) -> Overlay:
        plan = OverlayPlan(str(root), targets, frozenset(directories or ("site", "common")), frozenset(above))
        return Overlay(plan, {one: f"rules[1].roots of {one}" for one in plan.directories}, size)

    before = descriptors_at_rest()
    yield make
    assert descriptors_at_rest() == before


def asked(name: bytes, *roots: RootPath, require: Require = "nothing") -> ReadDecision:
    return ReadDecision((name,), roots=roots or (MACHINE, SITE, COMMON), require=require)


def read(overlay: Overlay, named: ReadDecision) -> str:
    """By both ways, which must agree; the refusal's code where there is no file."""
    results = []
    for found in (overlay.open(named), overlay.open_now(named)):
        if isinstance(found, OpenFile):
            results.append(os.pread(found.fd, 100, 0).decode())
            found.close()
        elif isinstance(found, NotHere):
            results.append(f"ERROR {int(found.refusal.code)}")
    assert len(set(results)) == 1, results  # LATER, where it cannot be known without waiting, says nothing
    return results[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"both", "machines/aa/both"),
        (b"own", "machines/aa/own"),
        (b"site", "site/site"),
        (b"common", "common/common"),
        (b"secret", "ERROR 1"),
        (b"x/y", "ERROR 1"),
    ],
)
def test_file_is_that_of_the_first_root_that_has_it(make: Make, name: bytes, expected: str) -> None:
    assert read(make(), asked(name)) == expected


def test_order_is_that_of_the_decision(make: Make) -> None:
    assert read(make(), asked(b"both", COMMON, SITE, MACHINE)) == "common/both"


def test_what_may_not_be_read_in_one_root_is_not_made_up_for_by_another(make: Make, root: Path) -> None:
    (root / "site/common").mkdir()
    assert read(make(), asked(b"common")) == "ERROR 2"
    (root / "machines/aa/site").write_bytes(b"large enough")
    assert read(make(size=11), asked(b"site")) == "ERROR 2"


@pytest.mark.parametrize(
    "name",
    [
        b"../../secret",
        b"../bb/x",
        b"..",
        b".",
        b"link",
        b"absolute",
        b"climbing/secret",
        b"climbing/site/site",
        b"chain",
        b"proc",
        b"\xff/../../../secret",
    ],
)
@pytest.mark.parametrize("where", ["machines/aa", "site"])
def test_no_name_and_no_link_of_a_root_leads_out_of_it(make: Make, root: Path, where: str, name: bytes) -> None:
    inside = root / where
    (inside / "link").symlink_to(os.path.relpath(root / "secret", inside))
    (inside / "absolute").symlink_to(root / "secret")
    (inside / "climbing").symlink_to(os.path.relpath(root, inside))
    (inside / "chain").symlink_to("link")
    (inside / "proc").symlink_to(f"/proc/self/root{root}/secret")
    only = RootPath("", b"machines/aa") if where == "machines/aa" else SITE
    overlay = make()
    for found in (overlay.open(asked(name, only)), overlay.open_now(asked(name, only))):
        assert not isinstance(found, OpenFile)
    assert read(overlay, asked(name, only)) in ("ERROR 1", "ERROR 2")


def test_links_within_a_root_are_followed_whether_relative_or_absolute(make: Make, root: Path) -> None:
    for where, only in (("machines/aa", MACHINE), ("site", SITE)):
        (root / where / "relative").symlink_to("both")
        (root / where / "absolute").symlink_to(root / where / "both")
        assert read(make(), asked(b"relative", only)) == f"{where}/both"
        assert read(make(), asked(b"absolute", only)) == f"{where}/both"


def test_links_of_a_root_may_lead_to_link_targets(make: Make, root: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/x").write_text("of the target")
    (root / "site/x").symlink_to(tmp_path / "lib/x")
    (root / "machines/aa/y").symlink_to(tmp_path / "lib/x")
    overlay = make(targets=(str(tmp_path / "lib"),))
    assert read(overlay, asked(b"x")) == read(overlay, asked(b"y")) == "of the target"


@pytest.mark.parametrize("target", ["../..", "../../..", "/", "../../../outside", "/etc"])
def test_root_that_a_variable_chooses_is_no_link_out_of_what_it_lies_in(make: Make, root: Path, target: str) -> None:
    (root.parent / "outside").mkdir()
    (root.parent / "outside/x").write_text("outside")
    (root / "machines/bb").symlink_to(target)
    overlay = make("common")
    for name in (b"x", b"passwd", b"outside/x", b"etc/passwd"):
        assert read(overlay, asked(name, RootPath("", b"machines/bb"))).startswith("ERROR")


@pytest.mark.parametrize("target", ["../../outside", "{outside}", "/", "machines/back/../../outside"])
def test_relative_root_is_no_link_out_of_root_dir(make: Make, root: Path, target: str) -> None:
    """Whoever may put a link below root_dir chooses no directory elsewhere by it."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "x").write_text("outside")
    (root / "machines/back").symlink_to("..")
    (root / "way").mkdir()
    (root / "way/common").symlink_to(target.format(outside=outside))
    with pytest.raises(ConfigError, match=r"/root/way/common: (a link leads out of root_dir|No such file)"):
        make("way/common")
    (root / "way/common").unlink()
    (root / "way/common").mkdir()
    overlay = make("way/common")
    assert read(overlay, asked(b"x", RootPath("way/common"))) == "ERROR 1"
    (root / "way/common").rmdir()
    (root / "way/common").symlink_to(target.format(outside=outside))
    with pytest.raises(ConfigError, match=r"a link leads out of root_dir|No such file"):
        overlay.look_again()
    assert read(overlay, asked(b"x", RootPath("way/common"))) == "ERROR 1", "the old one stays"
    assert read(overlay, asked(b"x", RootPath("", b"way/common"))).startswith("ERROR")


def test_relative_root_may_be_a_link_within_root_dir_or_to_link_targets(make: Make, root: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/x").write_text("of the target")
    for name, target in (("a", "site"), ("b", root / "site"), ("c", tmp_path / "lib")):
        (root / name).symlink_to(target)
    overlay = make("a", "b", "c", targets=(str(tmp_path / "lib"),))
    assert read(overlay, asked(b"site", RootPath("a"))) == read(overlay, asked(b"site", RootPath("b"))) == "site/site"
    assert read(overlay, asked(b"x", RootPath("c"))) == "of the target"


def test_root_that_a_variable_chooses_may_be_a_link_to_another_beside_it(make: Make, root: Path) -> None:
    (root / "machines/bb").symlink_to("aa")
    (root / "machines/cc").symlink_to("../site")
    (root / "machines/dd").symlink_to(root / "site")
    overlay = make()
    assert read(overlay, asked(b"own", RootPath("", b"machines/bb"))) == "machines/aa/own"
    assert read(overlay, asked(b"site", RootPath("", b"machines/cc"))) == "site/site"
    assert read(overlay, asked(b"site", RootPath("", b"machines/dd"))) == "site/site"


@pytest.mark.parametrize("below", [b"machines/..", b"..", b"machines/../..", b"/etc", b"machines/aa/both"])
def test_root_that_climbs_or_is_no_directory_has_no_file(make: Make, below: bytes) -> None:
    for name in (b"secret", b"passwd", b"root/secret"):
        decision = asked(name, RootPath("machines", below))
        overlay = make(above=("machines",))
        for found in (overlay.open(decision), overlay.open_now(decision)):
            assert not isinstance(found, OpenFile)


def test_directory_of_a_machine_that_appears_or_goes_is_noticed_at_once(make: Make, root: Path) -> None:
    overlay, new = make(), asked(b"both", RootPath("", b"machines/new"), COMMON)
    assert read(overlay, new) == "common/both"
    (root / "machines/new").mkdir()
    (root / "machines/new/both").write_text("of the new one")
    assert read(overlay, new) == "of the new one"
    (root / "machines/new").rename(root / "machines/old")
    assert read(overlay, new) == "common/both"


def test_known_and_missing_directories_of_machines_make_nobody_wait(make: Make, root: Path) -> None:
    overlay = make()
    for name, machine in ((b"own", b"aa"), (b"common", b"aa"), (b"common", b"missing")):
        named = asked(name, RootPath("", b"machines/" + machine), SITE, COMMON)
        assert not (root / "machines/missing").exists()
        read(overlay, named)  # now the kernel knows
        found = overlay.open_now(named)
        if not overlay._above[""].is_local:
            pytest.skip("the tests' directory lies on a file system that may have to ask somebody")
        assert isinstance(found, OpenFile)
        found.close()


def test_missing_root_is_an_error_that_names_it(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"^rules\[1\]\.roots of nowhere: .*/root/nowhere: No such file"):
        make("nowhere")


def test_missing_directory_above_variables_is_found_when_it_is_made(make: Make, root: Path) -> None:
    overlay = make(above=("later",))
    named = asked(b"x", RootPath("later", b"aa"), COMMON)
    assert overlay.missing == {"later"}
    assert read(overlay, named) == "ERROR 1"
    (root / "later/aa").mkdir(parents=True)
    (root / "later/aa/x").write_text("later")
    assert overlay.look_again()
    assert overlay.missing == frozenset()
    assert read(overlay, named) == "later"
    assert not overlay.look_again()


def test_root_that_was_made_anew_is_followed_by_the_next_look(make: Make, root: Path) -> None:
    overlay = make()
    (root / "site").rename(root / "site.old")
    (root / "site").mkdir()
    (root / "site/site").write_text("new")
    assert read(overlay, asked(b"site")) == "site/site"
    assert overlay.look_again()
    assert read(overlay, asked(b"site")) == "new"


def test_root_that_is_gone_stays_what_it_was_and_says_so(make: Make, root: Path) -> None:
    overlay = make()
    (root / "site").rename(root / "site.old")
    with pytest.raises(ConfigError, match="site"):
        overlay.look_again()
    assert read(overlay, asked(b"site")) == "site/site"


def test_only_what_lies_in_a_first_root_without_variables_may_be_looked_for_again_by_others(make: Make) -> None:
    overlay = make()
    for named, may in (
        (asked(b"site", SITE, COMMON), True),
        (asked(b"common", SITE, COMMON), False),
        (asked(b"own"), False),
    ):
        found = overlay.open(named)
        assert isinstance(found, OpenFile)
        assert (found.root_fd >= 0) == (may and overlay._trees["site"].is_local)
        found.close()


def test_file_must_be_what_the_rule_requires(make: Make, root: Path) -> None:
    overlay = make()
    (root / "site/site").chmod(0o640)
    assert read(overlay, asked(b"site", require="world_readable")) == "ERROR 2"
    (root / "site/site").chmod(0o604)
    assert read(overlay, asked(b"site", require="world_readable")) == "site/site"
    assert read(overlay, asked(b"site", require="owned")) == "site/site"


def test_file_may_have_to_belong_to_the_servers_user(make: Make, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay, named = make(), asked(b"site", require="owned")
    (root / "site/site").chmod(0o600)
    owner = (root / "site/site").stat().st_uid
    for user, expected in ((owner or 1, "site/site" if owner else "ERROR 2"), (owner + 1, "ERROR 2"), (0, "ERROR 2")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert read(overlay, named) == expected
    (root / "site/site").chmod(0o604)
    assert read(overlay, named) == "site/site"  # root serves what everybody may read, as dnsmasq does


def test_each_device_is_waited_for_by_its_own_kind(make: Make, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay, named = make(), asked(b"common")
    device = (root / "site").stat().st_dev
    monkeypatch.setattr(overlay, "_open_now", lambda root, named: LATER)  # as where nothing is in the caches
    assert overlay.open_now(named) is LATER
    assert overlay.device_of(named) == device
    assert overlay.open_on(named, device + 1) == device
    found = overlay.open_on(named, device)
    assert isinstance(found, OpenFile)
    found.close()
