r"""Names that try to get out of a root, each with what it is a trick of.

    for trick, name in names(root, base): ...      b"{root}" and b"{base}" are filled in

May know: nothing but bytes. Every trick is asked as it is, and once more through each rewriting of `WAYS`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["CORE", "CORPUS", "FEW", "WAYS", "filled", "names", "ways_of"]

CORPUS: Mapping[str, tuple[bytes, ...]] = {
    "dot-dot": (
        b"..",
        b"../secret",
        b"../../secret",
        b"../outside/secret",
        b"/../outside/secret",
        b"//..//outside/secret",
        b"Sub/../../outside/secret",
        b"Sub/Deep/../../../outside/secret",
        b"./.././outside/./secret",
        b"nowhere/../../outside/secret",
        b"file/../../outside/secret",
        b"../root/../outside/secret",
        b"../" * 150 + b"etc/passwd",
    ),
    "backslashes and drives": (
        b"..\\outside\\secret",
        b"\\..\\outside\\secret",
        b"Sub\\..\\..\\outside/secret",
        b"..\\/outside\\/secret",
        b"C:\\..\\outside\\secret",
        b"C:..\\outside\\secret",
        b"\\\\?\\C:\\..\\secret",
        b"\\\\host\\share\\..\\..\\outside\\secret",
    ),
    "encodings": (
        b"%2e%2e/outside/secret",
        b"%2e%2e%2foutside%2fsecret",
        b"..%2foutside%2fsecret",
        b"%252e%252e%252foutside%252fsecret",
        b"..%5coutside%5csecret",
        b"%2e%2e%5coutside%5csecret",
        b"\xc0\xae\xc0\xae/outside/secret",  # overlong dots
        b"\xc0\xae\xc0\xae\xc0\xafoutside\xc0\xafsecret",
        b"\xe0\x80\xae\xe0\x80\xae/outside/secret",
        b"\xef\xbc\x8e\xef\xbc\x8e/outside/secret",  # fullwidth dots
        b"\xe2\x80\xa5/outside/secret",  # a two-dot leader
        b"..\xe2\x88\x95outside\xe2\x88\x95secret",  # a division slash
        b"+AC4ALg-/outside/secret",  # UTF-7
        b"\xff\xfe.\0.\0/\0".replace(b"\0", b"") + b"outside/secret",
        b"&#46;&#46;/outside/secret",
        b"\\x2e\\x2e/outside/secret",
    ),
    "what is cut off": (
        b"..\xff/outside/secret",
        b"../outside/secret\xff\x03\n",
        b"..\r/outside/secret",
        b".. /outside/secret",
        b".\xff./outside/secret",
        b"..\xff",
        b"../outside/secret ",
        b"../outside/secret\r\n",
        b"...//outside/secret",
        b"....//outside/secret",
        b"..../\\outside/secret",
    ),
    "absolute": (
        b"/etc/passwd",
        b"//etc/passwd",
        b"etc/passwd",
        b"{base}/outside/secret",
        b"{root}/../outside/secret",
        b"{root}/..\\outside/secret",
        b"{root}x/secret",
        b"{root}/{root}/../outside/secret",
        b"{root}/Sub/../../outside/secret",
        b"{base}/absolute/../outside/secret",
        b"file:///etc/passwd",
        b"tftp://127.0.0.1/../outside/secret",
        b"~root/.bashrc",
        b"~/.ssh/id_rsa",
    ),
    "proc": (
        b"/proc/self/environ",
        b"/proc/self/root{base}/outside/secret",
        b"proc/self/cwd/outside/secret",
        b"Proc/root{base}/outside/secret",
        b"Proc/cwd",
        b"Proc/environ",
        b"Cwd",
        b"Fds/0",
        b"Fds/3",
        b"Fds/9/../outside/secret",
        b"/dev/stdin",
        b"/dev/fd/3",
        b"Dev/zero",
    ),
    "links": (
        b"Out/secret",
        b"OUT/secret",
        b"up/outside/secret",
        b"UP/OUTSIDE/SECRET",
        b"climb/outside/secret",
        b"leak",
        b"LEAK",
        b"passwd",
        b"chain",
        b"long-chain",
        b"circle",
        b"Loop/Loop/Loop/leak",
        b"In/../../outside/secret",
        b"In/../leak",
        b"place/out/secret",
        b"place/up/outside/secret",
        b"place/../outside/secret",
        b"place/../root/../outside/secret",
        b"back/../../outside/secret",
        b"Sub/Out/secret",
        b"common/Out/secret",
        b"common/up/up/outside/secret",
        b"nowhere-else",
        b"fifo",
        b"socket",
    ),
    "hidden": (b".git/config", b".GIT/CONFIG", b"Sub/.hidden", b"SUB/.HIDDEN", b"{root}/.git/config", b".x", b"./.x"),
    "case": (
        b"SUB/../../OUTSIDE/SECRET",
        b"sub/..\\..\\Outside\\Secret",
        b"\xe2\x84\xaa",  # the Kelvin sign is no K
        b"\xc4\xb0",
        b"pASSWD",
    ),
    "lengths": (
        b"A" * 480,
        b"Sub/" * 110 + b"File",
        b"Loop/" * 90 + b"leak",
        b"./" * 200 + b"../outside/secret",
        b"Sub/../" * 60 + b"../outside/secret",
        b"\x82" * 400,
        b"/" * 450 + b"../outside/secret",
        b"x" * 256 + b"/../../outside/secret",
        b"",
        b"/",
        b".",
        b" ",
        b"\xff",
    ),
    "variables": (
        b"{dir}/secret",
        b"${HOME}/.ssh/id_rsa",
        b"by/../{dir}/secret",
        b"machines/../../outside/secret",
        b"machines/52:54:00:00:00:01/../../../outside/secret",
        b"52:54:00:00:00:01/../../../outside/secret",
        b"01-..-..-..-..-..-..",
        b"..-boot.log",
        b"pxelinux.cfg/01-52-54-00-00-00-01/../../../outside/secret",
        b"Out/start4.elf",  # a serial number that the inventory has
        b"made/../../outside/secret",
        b"made/..",
        b"made/leak.j2",
        b"made/..\\..\\outside\\secret",
        b"h/../../outside/secret",
        b"h/Out/secret",
        b"h/..",
        b"h/leak",
        b"h/{base}/outside/secret",
    ),
    "siblings": (b"secret", b"SECRET", b"secret.efi", b"..efi", b".hidden", b"Out", b"grubx64.efi", b"leak.efi"),
}
CORE = (
    *(b"file", b"secret", b"../outside/secret", b"../secret", b"..\\..\\outside\\secret", b"{base}/outside/secret"),
    *(b"Out/secret", b"leak", b"up/outside/secret", b"climb/outside/secret", b"%2e%2e/outside/secret", b".git/config"),
    *(b"OUT/SECRET", b"Sub/../../outside/secret", b"", b"made/x", b"h/leak", b"Loop/leak", b"D/outside/secret"),
)
"""Of everything a little: what each client with a strange identity asks for."""
FEW = CORE[2:9]
"""For uploads, which cost more."""
WAYS: Mapping[str, bytes] = {
    "as it is": b"",
    "in upper case": b"U/",
    "in lower case": b"L/",
    "behind dot-dot": b"D/",
    "behind a slash": b"A/",
    "behind the address": b"I/",
    "behind hex digits": b"X/",
    "one candidate of several": b"E/",
    "with every ../ taken out once": b"N/",
    "in two groups": b"T/",
    "decoded": b"P/",
    "to a template": b"made/",
    "to a function": b"h/",
}
"""Prefixes that the rules of `escape_scene` know."""


def filled(name: bytes, root: Path, base: Path) -> bytes:
    return name.replace(b"{root}", bytes(root)).replace(b"{base}", bytes(base))


def names(root: Path, base: Path) -> Iterator[tuple[str, bytes]]:
    """All tricks with their kind."""
    for kind, tricks in CORPUS.items():
        for name in tricks:
            yield kind, filled(name, root, base)


def ways_of(name: bytes) -> Iterator[bytes]:
    """A name through each rewriting."""
    return (prefix + name for prefix in WAYS.values())
