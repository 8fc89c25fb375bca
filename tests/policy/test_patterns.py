"""What a glob matches, and which texts are none."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.patterns import PathPatterns


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("file", ["file"], ["File", "file2", "afile", "sub/file", "file/x"]),
        ("/file", ["file"], ["sub/file"]),
        ("sub/file", ["sub/file"], ["file", "sub", "sub/sub/file"]),
        ("*", ["file", ".hidden", "a b"], ["sub/file"]),
        ("*.cfg", ["a.cfg", ".cfg"], ["a.cfg.bak", "sub/a.cfg", "a.CFG", "acfg"]),
        ("sub/*", ["sub/a"], ["sub", "sub/a/b", "sub2/a"]),
        ("*/a", ["sub/a"], ["a", "x/y/a"]),
        ("**", ["a", "a/b", "a/b/c", ".x"], []),
        ("sub/**", ["sub/a", "sub/a/b"], ["sub", "subs/a", "a/sub/b"]),
        ("**/a", ["a", "x/a", "x/y/a"], ["ba", "x/ba", "a/x"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["xa", "x/ya"]),
        ("a?c", ["abc", "aüc"], ["ac", "abbc", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "Ax", "x", "-x"]),
        ("[!a-c]x", ["dx", "-x"], ["ax", "/x", "x"]),
        ("a[!b]c", ["axc"], ["abc", "a/c"]),
        ("a[.-0]c", ["a.c", "a0c"], ["a/c", "a-c"]),
        ("[]x]", ["]", "x"], ["[", "[]x]"]),
        ("[!]]", ["x"], ["]"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("[[&&~~||]", ["[", "&", "~", "|"], ["a"]),
        ("a+(b).|$^{2}", ["a+(b).|$^{2}"], ["aab", "a+(b)x|$^{2}"]),
        ("a\nb", ["a\nb"], ["a b"]),
    ],
)
def test_pattern_matches_these_whole_paths_and_no_others(pattern: str, matching: list[str], other: list[str]) -> None:
    patterns = PathPatterns([pattern])
    assert [path for path in matching + other if patterns.match(path.encode())] == matching


def test_no_pattern_matches_nothing() -> None:
    assert not PathPatterns([]).match(b"file")
    assert not PathPatterns([]).match(b"")


def test_one_of_many_patterns_is_enough() -> None:
    patterns = PathPatterns(["a", "b/*", "c"])
    assert [path for path in (b"a", b"b/x", b"c", b"d", b"ab/x") if patterns.match(path)] == [b"a", b"b/x", b"c"]


def test_name_that_is_no_utf8_matches_as_any_other() -> None:
    assert PathPatterns(["a*"]).match(b"a\xff")
    assert not PathPatterns(["b*"]).match(b"a\xff")


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "//a", "a//b", "a/", "./a", "a/.", "../a", "a/../b", "a\\b", "[a", "a[", "[z-a]", "[]", "[!]"],
)
def test_what_can_match_no_path_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'"{pattern}"')):
        PathPatterns([pattern])


@given(st.lists(st.text(alphabet="ab.*?[]!-/", min_size=1, max_size=12), max_size=3))
def test_any_text_is_a_config_error_or_a_pattern_that_stays_within_its_depth(texts: list[str]) -> None:
    try:
        patterns = PathPatterns(texts)
    except ConfigError:
        return
    deep = b"/".join([b"a"] * 20)
    assert not patterns.match(deep) or any("**" in text for text in texts)


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="*?[\\/"), min_size=1).filter(
        lambda t: t not in ("..", ".")
    )
)
def test_text_without_special_characters_matches_itself_alone(text: str) -> None:
    patterns = PathPatterns([text])
    assert patterns.match(text.encode())
    assert not patterns.match(text.encode() + b"x")


# ---- the search is short, and finds what a plain one does


def plainly(pattern: str) -> re.Pattern[str]:
    """The same language in the simplest words, which search for ever in the worst case."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "[!a]": "[^a/]"}
    tokens = re.compile(r"(?:(?<=/)|^)\*\*/|\*\*|\*|\?|\[!a\]|.", re.DOTALL).findall(pattern)
    return re.compile("".join(words.get(token) or re.escape(token) for token in tokens), re.DOTALL)


TOKENS = st.lists(
    st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "[!a]", "/**/", "*a", "*b*"]), min_size=1, max_size=9
)


@settings(max_examples=500)
@given(TOKENS.map("".join), st.lists(st.text("ab/", max_size=14), min_size=1, max_size=12))
@example("**a*b", ["a/ab", "ab/b", "xab"])
@example("**/a*b*", ["a/ab", "b/aab/b", "aab"])
@example("*a/*b**a", ["ba/aba", "a/b/a", "aa/b"])
def test_pattern_matches_what_a_plain_search_would_find(pattern: str, paths: list[str]) -> None:
    try:
        patterns = PathPatterns([pattern])
    except ConfigError:
        return
    expected = plainly(pattern.removeprefix("/"))
    for path in paths:
        assert patterns.match(path.encode()) is (expected.fullmatch(path) is not None), path


@pytest.mark.parametrize(
    "pattern",
    [
        "*-*-*-*-*-*.cfg",
        "**/*-*-*-*/*.cfg",
        "**-**-**-**-**-**.cfg",
        "**/-*/**/-*/**/-*/**/-*.cfg",
        "**-*-*-**-*-*.cfg",
        "*" * 30 + ".cfg",
        "**/" * 12 + "x",
    ],
)
@pytest.mark.parametrize("path", [b"-" * 490, b"-/" * 245, b"-a/" * 163, b"--/-" * 122])
def test_no_path_makes_the_search_long(pattern: str, path: bytes) -> None:
    patterns = PathPatterns([pattern])
    before_s = time.process_time()
    assert not patterns.match(path)
    assert time.process_time() - before_s < 0.25  # of this process alone; a plain search takes from seconds to years
