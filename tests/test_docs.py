"""What the texts name is there: files, modules and links in the documents, files in the comments of the source.

May know: text only; it imports nothing of the package. Must not judge what a text says.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "src/snow_owl_tftp"

LATER: Final = {"uploads.toml": "a reader of README makes it"}
"""Files that a text names, and that are not of the repository."""
OF_OTHERS: Final = ("linux/", "include/", "fs/", "net/core/")
"""Where the kernel's own files lie, which comments cite. Ours in `linux` end in .py."""

_FILE: Final = r"[\w\-]+\.(?:py|pyi|pyx|pxd|md|toml|c|h|sh)\b"
_QUOTED: Final = re.compile(r"`([^`\n]+)`")
_IN_PROSE: Final = re.compile(rf"(?<![\w/.\-])(?:[\w\-]+/)*{_FILE}")
_WITH_FOLDER: Final = re.compile(rf'(?<![\w/.\-<"])(?:[\w\-]+/)+{_FILE}|(?<![\w/.\-<"])\w+\.(?:pxd|pyx)\b')
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def files() -> set[str]:
    """Everything that a text may name, by its path from the repository's root."""
    folders = ("benchmarks", "docs", "examples", "scripts", "src", "tests")
    inside = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    return {path.relative_to(REPOSITORY).as_posix() for path in [*inside, *REPOSITORY.glob("*.*")]}


def documents() -> list[str]:
    """Without the changelog, which also tells of what is gone."""
    return sorted(path for path in files() if path.endswith(".md") and path != "CHANGELOG.md")


def text_of(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def is_there(name: str, among: set[str]) -> bool:
    """A text may name a file by the end of its path: `worker/send.pxd`."""
    return any(path == name or path.endswith(f"/{name}") for path in among)


def modules() -> set[str]:
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        for suffix in ("py", "pyx", "pxd")
        for path in PACKAGE.rglob(f"*.{suffix}")
    }


def missing_files(text: str, among: set[str]) -> Iterator[str]:
    for quoted in _QUOTED.findall(text):
        yield from (name for name in _IN_PROSE.findall(quoted) if name not in LATER and not is_there(name, among))


def missing_modules(text: str, among: set[str]) -> Iterator[str]:
    """Of `room.module.name`; what follows a room alone may be an attribute of something that is called like it."""
    rooms = "|".join(sorted({name.partition(".")[0] for name in among} - {""}))
    for name in re.findall(rf"`((?:{rooms})(?:\.\w+)+)`", text):
        if not among & {name, name.rpartition(".")[0], f"{name.rpartition('.')[0]}.__init__"}:
            yield name


def broken_links(path: str, text: str) -> Iterator[str]:
    for link in _LINK.findall(text):
        target, _, heading = link.partition("#")
        if "://" in link:
            continue
        place = (REPOSITORY / path).parent / target if target else REPOSITORY / path
        if not place.exists() or (heading and heading not in headings(place.read_text(encoding="utf-8"))):
            yield link


def headings(text: str) -> set[str]:
    """As the links of a rendered document spell them."""
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("path", documents())
def test_documents_name_files_and_modules_that_are_there(path: str) -> None:
    text = text_of(path)
    assert list(missing_files(text, files())) == []
    assert list(missing_modules(text, modules())) == []


@pytest.mark.parametrize("path", documents())
def test_links_of_documents_lead_somewhere(path: str) -> None:
    assert list(broken_links(path, text_of(path))) == []


def test_comments_name_files_that_are_there() -> None:
    among, missing = files(), []
    for path in sorted(among):
        if path.startswith(("src/", "benchmarks/")) and path.endswith((".py", ".pyi", ".pyx", ".pxd", ".c", ".h")):
            named = [name for name in _WITH_FOLDER.findall(text_of(path)) if not is_there(name, among)]
            missing += [f"{path}: {name}" for name in named if not name.startswith(OF_OTHERS) or name.endswith(".py")]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see `worker/gone.pxd`", ["worker/gone.pxd"]),
        ("`old.py`, `new.py`", ["old.py"]),
        ("`python there/new.py --all`", []),
        ("`uploads.toml`", []),
    ],
)
def test_a_name_that_leads_nowhere_is_found(text: str, expected: list[str]) -> None:
    assert list(missing_files(text, {"there/new.py"})) == expected


def test_a_module_and_a_link_that_lead_nowhere_are_found() -> None:
    among = {"server.__init__", "server.loop"}
    assert list(missing_modules("`server.loop`, `server.loop.TransferServer`, `server.gone`, `server.a.b`", among)) == [
        "server.a.b"
    ]
    assert list(broken_links("README.md", "[a](docs/gone.md) [b](README.md#no-such-heading) [c](README.md)")) == [
        "docs/gone.md",
        "README.md#no-such-heading",
    ]
