"""A handler's paths lead nowhere outside: names, links, and what the handler itself makes of them."""

import asyncio
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.client import Client

from snow_owl_tftp import AsyncClient, ReadRequest, Response, Server
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.errors import ConfigError, RefusedError, TransferRefused
from snow_owl_tftp.library.confined import confine, path_of

SECRET = b"nobody's business"


@pytest.fixture
def root(tmp_path):
    """A root with a secret beside it, and every kind of link to that."""
    root = tmp_path / "root"
    (root / "boot").mkdir(parents=True)
    (root / "boot/x").write_bytes(b"x")
    (root / "own").symlink_to("boot/x")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "rooted").write_bytes(SECRET)  # a neighbour whose name begins as the root's
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "relative").symlink_to("../secret")
    (root / "out").symlink_to("..")
    return root


async def fetch(read, name, **options):
    async with Server(read=read, **options) as server, AsyncClient(*server.address) as client:
        return await client.get(name)


async def refusal(read, name, **options):
    with pytest.raises(TransferRefused) as refused:
        await fetch(read, name, **options)
    return refused.value.code


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("x", "x"),
        ("/boot/x", "boot/x"),
        ("//boot///x", "boot/x"),
        ("./boot/./x", "boot/x"),
        ("\\boot\\x", "boot/x"),
        ("boot/y/../x", "boot/x"),
        ("boot/..\\x", "x"),
        ("/", "."),
        ("boot/..", "."),
        ("...", "..."),
        ("..x/x..", "..x/x.."),
        ("grün", "grün"),
    ],
)
def test_name_is_spelled_as_a_relative_path(name, path):
    assert path_of(name) == path
    assert not Path(path_of(name)).is_absolute()


@given(st.text(st.sampled_from("ab./\\ \x00\n\udcffü:~"), max_size=30))
def test_no_name_at_all_leads_above_the_directory_it_is_joined_to(name):
    try:
        path = path_of(name)
    except RefusedError:
        return
    assert os.path.normpath(f"/root/{path}").split("/")[1] == "root"
    assert Path("/root", path).parts[:2] == ("/", "root")
    assert ".." not in Path(path).parts
    assert path_of(path) == path


CLIMBING = ["..", "../x", "/../x", "../../etc/hostname", "boot/../../x", "..\\x", "a/../../a", "./../x", "/..//../x"]


@pytest.mark.parametrize("name", CLIMBING)
def test_name_that_climbs_above_the_top_is_refused(name):
    with pytest.raises(OutsideRootError) as refused:
        path_of(name)
    assert refused.value.code == 2


@pytest.mark.parametrize("name", [*CLIMBING, "x\ny", "\x1b[2J"])
async def test_handler_is_not_asked_about_a_name_that_leads_nowhere_safe(name):
    asked = []
    assert await refusal(asked.append, name) == 2
    assert asked == []


async def test_what_everybody_writes_first_hands_out_nothing_else(root):
    async def read(request):
        return Response(root / request.path)

    assert await fetch(read, "boot/x") == b"x"
    assert await fetch(read, "/boot/x") == b"x"
    for name in ("../secret", "boot/../../secret", str(root.parent / "secret"), "../../../../../../etc/hostname"):
        assert await refusal(read, name) in (1, 2)


async def test_raw_name_is_kept_and_is_no_path(root):
    seen = []

    def read(request):
        seen.append(request.raw_name)
        return Response(root / request.raw_name)

    assert await refusal(read, "/boot/../secret") == 0
    assert seen[0] == b"/boot/../secret"


# ---- request.under(root)


def request(path):
    return ReadRequest("127.0.0.1", 2070, None, path, "octet", {})


async def test_under_sends_what_is_below_links_inside_included(root):
    for name in ("boot/x", "/boot/x", "own", "boot/y/../x"):
        assert await fetch(lambda request: Response(request.under(root)), name) == b"x"
        assert await fetch(lambda request: Response(request.under(str(root))), name) == b"x"


@pytest.mark.parametrize("name", ["absolute", "relative", "out/secret", "out/root/boot/x"])
async def test_no_link_leads_out_of_under(root, name):
    assert await refusal(lambda request: Response(request.under(root)), name) == 2
    with pytest.raises(RefusedError):
        request(name).under(root).open()
    assert not request(name).under(root).is_file()


@pytest.mark.parametrize(("name", "code"), [("missing", 1), ("boot", 2), ("/", 2), ("boot/x/y", 1)])
async def test_under_refuses_what_is_no_file_with_the_code_of_the_file_server(root, name, code):
    assert await refusal(lambda request: Response(request.under(root)), name) == code


@pytest.mark.parametrize("name", [".hidden", "boot/.hidden", ".git/config"])
async def test_name_with_a_dot_before_a_part_is_not_there_unless_it_is_asked_for(root, name):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(b"dot")
    assert await refusal(lambda request: Response(request.under(root)), name) == 1
    assert await refusal(None, name, root=root) == 1
    assert not request(name).under(root).is_file()
    assert await fetch(lambda request: Response(request.under(root, hidden=True)), name) == b"dot"
    assert await fetch(lambda request: Response(root / name), "x", root=root) == b"dot"


async def test_under_a_directory_that_does_not_exist_finds_nothing(root):
    assert await refusal(lambda request: Response(request.under(root / "nobody")), "x") == 1


def test_program_reads_what_is_under_by_itself(root):
    file = request("boot/x").under(root)
    with file.open() as opened:
        assert opened.read() == b"x"
    assert file.read_bytes() == b"x"
    assert file.is_file()


async def test_refusal_that_opening_raises_is_the_answer(root):
    def read(request):
        return Response(request.under(root).read_bytes().upper())

    assert await fetch(read, "boot/x") == b"X"
    assert await refusal(read, "missing") == 1
    assert await refusal(read, "relative") == 2


def test_confined_file_is_no_path(root):
    with pytest.raises(TypeError):
        os.fspath(request("x").under(root))


async def test_under_is_converted_for_netascii(root):
    (root / "text").write_bytes(b"a\nb")

    def ask(address):
        with Client(address) as client:
            client.request("text", mode="netascii")
            return client.receive_packet()[0].payload

    async with Server(read=lambda request: Response(request.under(root))) as server:
        assert await asyncio.to_thread(ask, server.address) == b"a\r\nb"


# ---- Server(root=...)


async def test_root_alone_serves_the_files_below_it(root):
    assert await fetch(None, "/boot/x", root=root) == b"x"
    assert await fetch(None, "own", root=str(root)) == b"x"
    assert await refusal(None, "relative", root=root) == 2
    assert await refusal(None, "missing", root=root) == 1


@pytest.mark.parametrize("kind", ["beside", "climbs", "absolute link", "relative link", "directory link", "prefix"])
async def test_path_outside_of_a_declared_root_is_refused(root, kind, caplog):
    caplog.set_level(logging.WARNING, "snow_owl_tftp")
    path = {
        "beside": root.parent / "secret",
        "climbs": root / ".." / "secret",
        "absolute link": root / "absolute",
        "relative link": root / "relative",
        "directory link": root / "out" / "secret",
        "prefix": root.parent / "rooted",
    }[kind]
    assert path.read_bytes() == SECRET
    assert await refusal(lambda request: Response(path), "x", root=root) == 2
    told = [record for record in caplog.records if record.event == "a Response is outside of the root"]
    assert bool(told) is ("link" not in kind)
    assert all(record.response == str(path) for record in told)


async def test_path_inside_of_a_declared_root_is_sent_however_it_is_spelled(root, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("root")
    monkeypatch.chdir(tmp_path)
    spellings = [root / "boot/x", Path("root/boot/x"), root / "boot/../boot/x", root / "own", tmp_path / "link/boot/x"]
    for path in spellings[:4]:
        assert await fetch(lambda request: Response(path), "y", root=root) == b"x"  # noqa: B023
    for path in (spellings[0], spellings[4]):
        assert await fetch(lambda request: Response(path), "y", root=tmp_path / "link") == b"x"  # noqa: B023


async def test_under_another_directory_stays_in_the_declared_root(root, tmp_path):
    read = {
        "boot": lambda request: Response(request.under(root / "boot")),
        "out": lambda request: Response(request.under(root / "out")),
        "above": lambda request: Response(request.under(tmp_path)),
    }
    assert await fetch(read["boot"], "x", root=root) == b"x"
    assert await refusal(read["out"], "secret", root=root) == 2
    assert await refusal(read["above"], "secret", root=root) == 2


@pytest.mark.parametrize("kind", ["path", "under"])
def test_directory_that_becomes_a_link_while_it_is_looked_at_leads_nowhere(root, kind):
    (root / "boot/secret").write_bytes(b"ours")
    file = root / "boot/secret" if kind == "path" else request("secret").under(root / "boot")
    held = confine(root, file)
    assert held.read_bytes() == b"ours"
    (root / "boot").rename(root / "was")
    (root / "boot").symlink_to(root.parent)
    assert (root / "boot/secret").read_bytes() == SECRET
    with pytest.raises(OutsideRootError):
        held.read_bytes()


async def test_under_another_directory_is_held_to_that_too(root):
    (root / "boot/beside").symlink_to("../own")
    assert await refusal(lambda request: Response(request.under(root / "boot")), "beside", root=root) == 2
    assert await fetch(lambda request: Response(request.under(root)), "boot/beside", root=root) == b"x"


def test_root_that_is_no_directory_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"root: .* is no directory"):
            Server(root=path)


def test_confine_looks_at_no_directory_but_the_root(root):
    assert confine(root, root / "missing/x").path == "missing/x"


async def test_path_without_a_declared_root_is_the_handlers_own_choice(root):
    assert await fetch(lambda request: Response(root / "relative"), "x") == SECRET
