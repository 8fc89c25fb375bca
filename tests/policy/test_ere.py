"""POSIX expressions on RE2: glibc's own regcomp and regexec, which tftpd-hpa calls, say what is right."""

import ctypes
import random
import re
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.ere import parse_ere
from snow_owl_tftp.policy.rewrite.grouping import groups_of
from snow_owl_tftp.policy.rewrite.matching import Matcher, Matches

LIBC = ctypes.CDLL(None)
REG_EXTENDED, REG_ICASE = 1, 2


LIBC.newlocale.restype = LIBC.uselocale.restype = ctypes.c_void_p
LIBC.newlocale.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
LIBC.uselocale.argtypes = (ctypes.c_void_p,)
LC_CTYPE_MASK = 1


@pytest.fixture(autouse=True)
def in_the_c_locale() -> Iterator[None]:
    """Python sets the user's, in which a character may be several bytes."""
    before = LIBC.uselocale(LIBC.newlocale(LC_CTYPE_MASK, b"C", None))
    yield
    LIBC.uselocale(before)


class Span(ctypes.Structure):
    _fields_ = (("begin", ctypes.c_int), ("end", ctypes.c_int))


class Glibc:
    """A regex_t: of 64 bytes on x86-64."""

    def __init__(self, pattern: bytes, flags: int = 0) -> None:
        self.buffer = ctypes.create_string_buffer(256)
        self.is_valid = LIBC.regcomp(self.buffer, pattern, REG_EXTENDED | flags) == 0

    def search(self, name: bytes) -> list[bytes] | None:
        spans = (Span * 10)()
        if LIBC.regexec(self.buffer, name, 10, spans, 0) != 0:
            return None
        return [name[span.begin : span.end] if span.begin >= 0 else b"" for span in spans]

    def close(self) -> None:
        if self.is_valid:
            LIBC.regfree(self.buffer)


def ours(pattern: bytes, name: bytes, *, ignore_case: bool = False) -> list[bytes] | None:
    node, _ = parse_ere(pattern, ignore_case=ignore_case)
    found = Matcher(node, range(1, 10)).search(name)
    return None if found is None else found[2] + [b""] * (10 - len(found[2]))


# What stands in the maps of Debian, Ironic, xCAT, FOG, novaboot and others, and what they are meant for; then every
# part of the grammar once.
WRITTEN: Sequence[tuple[bytes, Sequence[bytes]]] = [
    (rb"\\", [rb"Boot\x64\wdsnbp.com", b"plain"]),
    (rb"(\\)", [rb"Boot\x64", b"x"]),
    (rb"^[a-z]:", [b"c:/boot", b"C:/boot", b"/c:"]),
    (rb"\#", [b"a#b"]),
    (rb"/../", [b"/aa/bb", b"a/..b"]),
    (rb"^(/tftpboot/)", [b"/tftpboot/x", b"tftpboot/x", b"//tftpboot/"]),
    (rb"^(^/)", [b"/x", b"x"]),
    (rb"^([^/])", [b"x/y", b"/x", b"\nx", b""]),
    (rb"\.efi.*", [b"ipxe.efi\xff\x03\n", b"ipxe.efi", b"efi"]),
    (rb"^(.*)/([^/]+)\.(cfg|conf)$", [b"a/b/c.cfg", b"a.conf", b"/x.conf"]),
    (rb"(linux|linux64)(.*)", [b"linux64.img", b"linux.img", b"xlinux64"]),
    (rb"(a|ab)(c|bcd)(d*)", [b"abcd", b"acd"]),
    (rb"[]a-c^-]+", [b"x]a^-b", b"-"]),
    (rb"[^]x]+", [b"]abx"]),
    (rb"[[:digit:][:upper:]_]{2,4}", [b"a1_Z9x", b"1"]),
    (rb"[[=a=]b[.-.]]+", [b"xa-b"]),
    (rb"[\n]+", [rb"a\n"]),
    (rb"\w+\W\s?\S", [b"ab-c", b"a  b"]),
    (rb"\bx\B", [b"xy", b"x y", b"ax"]),
    (rb"\<boot\>", [b"a boot/x", b"reboot", b"booty"]),
    (rb"\`a|b\'", [b"ab", b"xb", b"ba"]),
    (rb"a{,2}b", [b"aaab", b"b"]),
    (rb"a{2}", [b"aaa", b"a"]),
    (rb"a{0}b", [b"ab"]),
    (rb"(ab){1,}c?", [b"xababc"]),
    (rb"a**b+?", [b"aabb", b""]),
    (rb"()|x", [b"x"]),
    (rb"a||b", [b"b"]),
    (rb"x)", [b"x)", b"x"]),
    (rb"(^a|b$)", [b"ba", b"ab", b"cb"]),
    (rb"a\.b\{\|\(\$\^\*\+\?\}\]\0", [b"a.b{|($^*+?}]0"]),
    (b"\xe4[\xf6-\xff]", [b"\xe4\xfc", b"\xc3\xa4"]),
    (rb"^$", [b"", b"x"]),
    (rb".", [b"\n", b"\xff", b""]),
]


@pytest.mark.parametrize(("pattern", "names"), WRITTEN)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_written_expressions_match_what_glibc_matches(
    pattern: bytes, names: Sequence[bytes], ignore_case: bool
) -> None:
    theirs = Glibc(pattern, REG_ICASE if ignore_case else 0)
    assert theirs.is_valid
    for name in [name.swapcase() for name in names] + list(names):
        assert ours(pattern, name, ignore_case=ignore_case) == theirs.search(name), name
    theirs.close()


@pytest.mark.parametrize(
    "pattern",
    [b"(a", b"[a", b"[[:alpha:]", b"[[:foo:]]", b"a{2", b"a{x}", b"a{3,2}", b"*a", b"+", b"(?a)", b"a|*b", b"^*", b"\\",
     b"{1}", b"[z-a]", b"(*)"],
)  # fmt: skip
def test_what_glibc_refuses_is_refused(pattern: bytes) -> None:
    assert not Glibc(pattern).is_valid
    with pytest.raises(ConfigError):
        parse_ere(pattern)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (rb"(a)\1", "refers back"),
        (rb"a{1001}", "more than 1000 times"),
        (rb"\.\>", "known beside"),
        (rb"(a|/)\>", "known beside"),
        (b"(" * 101 + b")" * 101, "parentheses"),
        (rb"((a{1000}){1000}){1000}", "smaller counts"),
    ],
)
def test_what_glibc_takes_and_re2_cannot_is_refused_with_a_remedy(pattern: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        Matcher(parse_ere(pattern)[0], ())
    assert ";" in str(caught.value)  # what is wrong; what to do


def test_letters_behind_a_backslash_are_refused_where_nobody_has_an_old_file() -> None:
    assert ours(rb"\d", b"1d") == [b"d", *[b""] * 9]
    with pytest.raises(ConfigError, match=r"\[0-9\]"):
        parse_ere(rb"\d", is_strict=True)


def random_pattern(rng: random.Random, depth: int = 0, *, is_counted: bool = False) -> bytes:
    """Of everything but counts around what may be empty: there even two programs for POSIX part a match differently."""
    kind = rng.random()
    if depth > 2 or kind < 0.45:
        atoms = [b"a", b"b", b"c", b"ab", b".", b"[ab]", b"[^a]", b"/", rb"\.", b"[[:alpha:]]"]
        return rng.choice(atoms if is_counted else [*atoms, b"b?", b"a*", b"c+"])
    if kind < 0.6:
        count = rng.choice([b"", b"+", b"{1,2}"] if is_counted else [b"", b"*", b"?", b"+", b"{1,2}"])
        return b"(" + random_pattern(rng, depth + 1, is_counted=is_counted or bool(count)) + b")" + count
    one, other = (random_pattern(rng, depth + 1, is_counted=is_counted) for _ in range(2))
    return b"(" + one + b"|" + other + b")" if kind < 0.8 else one + other


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Iterator[random.Random]:
    seed = 20261126
    print(f"seed {seed}")
    return random.Random(seed)


def test_random_expressions_match_what_glibc_matches(rng: random.Random) -> None:
    matched = 0
    for _ in range(600):
        pattern = random_pattern(rng)
        pattern = b"^" * (rng.random() < 0.3) + pattern + b"$" * (rng.random() < 0.3)
        theirs = Glibc(pattern)
        assert theirs.is_valid
        for _ in range(5):
            name = bytes(rng.choice(b"abc/.") for _ in range(rng.randrange(9)))
            expected = theirs.search(name)
            matched += expected is not None
            assert ours(pattern, name) == expected, (pattern, name)
        theirs.close()
    assert matched > 600


@given(st.lists(st.sampled_from([*(bytes([byte]) for byte in b"ab()[]|*+?{}1,2^$.\\-:/w<"), b"[:alpha:]"]), max_size=8))
def test_any_text_is_accepted_or_refused_as_by_glibc(parts: list[bytes]) -> None:
    pattern = b"".join(parts)
    theirs, problem = Glibc(pattern), ""
    try:
        Matcher(parse_ere(pattern)[0], ())
    except ConfigError as error:
        problem = str(error)
    # What glibc alone can do is the exception, and is told.
    assert bool(problem) != theirs.is_valid or "refers back" in problem or "known beside" in problem, pattern
    theirs.close()


def test_a_set_tells_what_each_expression_tells(rng: random.Random) -> None:
    nodes = [parse_ere(random_pattern(rng))[0] for _ in range(200)]
    matchers, matches = [Matcher(node, ()) for node in nodes], Matches(nodes)
    for _ in range(100):
        name = bytes(rng.choice(b"abc/.") for _ in range(rng.randrange(12)))
        assert matches.of(name) == {at for at, matcher in enumerate(matchers) if matcher.search(name)}


def test_a_set_that_has_no_memory_says_so() -> None:
    large = [parse_ere(b"(x{900}[a-f]{900}){1}" + b"%d" % at)[0] for at in range(3000)]
    assert Matches(large).of(b"x") is None
    assert Matches(large[:2]).of(b"x") == set()


def test_a_search_behind_the_begin_sees_no_begin() -> None:
    assert Matcher(parse_ere(b"^a")[0], ()).search(b"aa", 1) is None
    assert Matcher(parse_ere(rb"\ba")[0], ()).search(b"aa", 1) == (1, 2, [b"a"])  # regexec sees nothing before it


def groups(*patterns: bytes) -> list[list[int]]:
    return groups_of([parse_ere(pattern)[0] for pattern in patterns])


def test_expressions_that_wander_are_looked_for_few_at_a_time() -> None:
    assert groups(b"a", b"^b", b"c.*", b"^(.*)$", b"[0-9]+x", b"a{2}b") == [[0, 1, 2, 3, 4, 5]]
    assert groups(*[b".*x"] * 9, b"a") == [[9], [0, 1, 2, 3], [4, 5, 6, 7], [8]]
    # Those that begin with different texts are never under way together.
    assert groups(*(b"^/?v%d/.*x" % at for at in range(10, 90))) == [list(range(80))]
    assert groups(*[b"^/tftpboot/.*x"] * 5, b"^/x.*y") == [[0, 1, 2, 3, 5], [4]]
    found = groups(*(random_pattern(random.Random(at)) for at in range(99)))
    assert sorted(at for group in found for at in group) == list(range(99))


def test_no_name_makes_a_set_of_wandering_expressions_slow(rng: random.Random) -> None:
    """In one set these take four to seven times as long."""
    nodes = [parse_ere(b".*%c.*[^a]%c.*" % (97 + at % 26, 97 + at * 7 % 26))[0] for at in range(200)]
    matches, matchers = Matches(nodes), [Matcher(node, ()) for node in nodes]
    names = [bytes(rng.randrange(97, 123) for _ in range(500)) for _ in range(40)]
    began = time.process_time()
    for name in names:
        matches.of(name)
    together = time.process_time() - began
    for name in names:
        for matcher in matchers:
            matcher.search(name)
    assert together < 2 * (time.process_time() - began - together)
