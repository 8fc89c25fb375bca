"""The map file of tftpd-hpa: its grammar, and what each operation does, as a checklist."""

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.maps import DEBIAN, IRONIC

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.parse import parse_map
from snow_owl_tftp.policy.rewrite.program import MAX_CANDIDATES, MAX_NAME_BYTES
from snow_owl_tftp.policy.rewrite.rewrites import Rewrites, Rewritten

V4, V6 = "192.0.2.34", "2001:db8::feed:face:dead:beef"


def compiled(text: str | bytes, max_steps: int = 4096) -> Rewrites:
    return Rewrites([parse_map(text.encode() if isinstance(text, str) else text, "map")], max_steps)


def apply(text: str | bytes, name: str, host: str = V4, *, is_write: bool = False) -> Rewritten:
    return compiled(text).apply(name, host, is_write=is_write)


def becomes(text: str | bytes, name: str, host: str = V4, *, is_write: bool = False) -> str:
    """The one name, or what an ERROR says."""
    rewritten = apply(text, name, host, is_write=is_write)
    assert len(rewritten.names) + (rewritten.denial is not None) == 1, rewritten
    return rewritten.names[0] if rewritten.names else f"ERROR: {rewritten.denial}"


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        ("", "a", "a"),
        ("r b x", "abcb", "axcb"),
        ("r b", "abc", "ac"),
        ("r ^ x", "abc", "xabc"),
        # g looks at the whole again and again, gg behind what it replaced.
        ("rg // /", "a////b", "a/b"),
        ("rgg // /", "a////b", "a//b"),
        ("rgg a aa", "aba", "aabaa"),
        ("rgg ^a x", "aaa", "xaa"),
        ("rg ^a", "aaab", "b"),
        ("rgg a", "aabaa", "b"),
        ("g a x", "a", "a"),  # nothing without r
        ("ri a x", "BAB", "BxB"),
        ("r a x\nr x y", "a", "y"),  # rules go on after a match
        ("re a x\nr x y", "a", "x"),
        ("re a x\nr b y", "b", "y"),
        ("e ^\nr b y", "b", "b"),
        ("rs a b\nr b c", "aa", "cb"),  # from the start: no a is left before b is looked at
        ("~e ^/\nr ^/ x", "a", "a"),
        ("~e ^/\nr ^/ x", "/a", "xa"),
        ("j ^a end\nr .* no\n:end\nr $ !", "ab", "ab!"),
        ("j ^a end\nr .* no\n:end\nr $ !", "b", "no!"),
        ("j ^(.) to-\\1\nr .* no\n:to-a\nr $ !", "ab", "ab!"),
        ("j ^ end\n: end\nr $ !", "a", "a!"),
        ("j ^ e\nr ^ no\n:e\nr $ 1\n:e\nr $ 2", "a", "a12"),  # the first of two labels
        ("~j ^b end\nr .* no\n:end", "a", "a"),
        ("a ^/etc/\nr ^ x", "b", "xb"),
    ],
)
def test_operation(rules: str, name: str, expected: str) -> None:
    assert becomes(rules, name) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"\0", "ab-cd"),
        (r"<\1|\2|\3|\9>", "<ab|cd||>"),
        (r"\U\1\L\1\E\1x", "ABababx"),
        (r"\Ux\\\#\ y\Ez", "X\\# Yz"),
        (r"\q\-\/", "q-/"),
        (r"\i", "192.0.2.34"),
        (r"\x", "C0000222"),
        (r"\L\x", "c0000222"),
        ("x\\", "x\\"),
    ],
)
def test_escape(pattern: str, expected: str) -> None:
    assert becomes(rf"r ^(..)-(..)(x)?$ {pattern}", "ab-cd") == expected


def test_addresses_of_v6() -> None:
    assert becomes(r"r ^.*$ \i/\x", "a", V6) == f"{V6}/20010DB800000000FEEDFACEDEADBEEF"
    assert becomes(r"r ^.*$ \i/\x", "a", "::ffff:192.0.2.34") == "192.0.2.34/C0000222"
    assert becomes(r"r ^.*$ \i", "a", "fe80::1%lo") == "fe80::1"


@pytest.mark.parametrize(
    ("flags", "v4_read", "v4_write", "v6_read"),
    [("r", "xa", "xa", "xa"), ("rG", "xa", "a", "xa"), ("rP", "a", "xa", "a"), ("r4", "xa", "xa", "a"),
     ("r6", "a", "a", "xa"), ("r46", "a", "a", "a"), ("rGP", "a", "a", "a")],
)  # fmt: skip
def test_rule_for_some_requests(flags: str, v4_read: str, v4_write: str, v6_read: str) -> None:
    rules = f"{flags} ^ x"
    assert (becomes(rules, "a"), becomes(rules, "a", is_write=True), becomes(rules, "a", V6)) == (
        v4_read,
        v4_write,
        v6_read,
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (r"a \.pvt$", "Access violation"),
        (r"a ^(.*)\.pvt$ Not\ \1", "Not x"),
        (r"~a ^/ Only\ from\ /", "Only from /"),
        ("a ^.* \\0\xe4\n", "x.pvt??"),
    ],
)
def test_denial(rule: str, said: str) -> None:
    rewritten = apply(rule, "x.pvt")
    refusal = rewritten.refusal()
    assert (rewritten.names, rewritten.denial) == ((), said) or said in str(rewritten.denial)
    assert (refusal.code, refusal.text) == (2, rewritten.denial)
    assert "line 1" in refusal.why


def test_denial_that_a_client_wrote_is_short_and_printable() -> None:
    denial = apply(rb"a ^(.*)$ \1", "\n\udcff" + "x" * 400).denial
    assert denial is not None
    assert denial.startswith("??xxx")
    assert len(denial) == 200


def test_exists_makes_candidates_and_is_undone_otherwise() -> None:
    rules = "rE ^ machines/\nrE ^ groups/\nr ^ common/\nr $ !"
    assert apply(rules, "a").names == ("machines/a", "groups/a", "common/a!")
    assert apply("E ^\nr ^ x/", "a").names == ("a", "x/a")
    assert apply("E ^b\nr ^ x/", "a").names == ("x/a",)
    rewritten = apply("rE ^ x/\na ^ Nothing\\ here", "a")
    assert (rewritten.names, rewritten.denial) == (("x/a",), "Nothing here")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (f"rs ^ {'x' * 100}\n", "more than 1024 bytes"),
        (f"rg ^ {'x' * 100}", "more than 1024 bytes"),
        (f"rgg x* {'y' * 100}", "more than 1024 bytes"),
        ("rg a a", "too much work for one name"),
        ("s ^", "too much work for one name"),
        (":l\nj ^ l", "too much work for one name"),
        ("rs ^ x\n", "too much work for one name"),
        ("j ^(.*) \\1", 'no label "a"'),
    ],
)
def test_what_has_no_end_is_refused_as_by_hpa(rules: str, said: str) -> None:
    rewritten = apply(rules, "a")
    assert rewritten.denial == "Remap table failure"
    assert rewritten.names == ()
    assert said in rewritten.why
    assert "line " in rewritten.why


@pytest.mark.parametrize("rules", ["rg a a", "s ^", ":l\nj ^ l", "rs a a"])
def test_what_takes_more_steps_than_are_set_is_refused(rules: str) -> None:
    rewritten = compiled(rules, 100).apply("a", V4, is_write=False)
    assert rewritten.denial == "Remap table failure"
    assert "more than 100 steps" in rewritten.why


def test_candidates_are_bounded_and_each_is_looked_for_once() -> None:
    rules = [f"rE ^ {at}/" for at in range(MAX_CANDIDATES + 1)]
    assert len(apply("\n".join([*rules[:-1], *rules[:-1]]), "a").names) == MAX_CANDIDATES + 1
    rewritten = apply("\n".join(rules), "a")
    assert (len(rewritten.names), rewritten.denial) == (MAX_CANDIDATES, "Remap table failure")
    assert f"more than {MAX_CANDIDATES} candidates by the rule at line {MAX_CANDIDATES + 1}" in rewritten.why


def test_rules_that_are_looked_at_are_steps() -> None:
    rules = "r a b\n" * 10
    assert compiled(rules, 10).apply("a", V4, is_write=False).names == ("b",)
    assert compiled("rg a b\n" + "e x\n" * 9, 12).apply("aaa", V4, is_write=False).names == ("bbb",)
    assert compiled("rg a b\n" + "e x\n" * 9, 11).apply("aaa", V4, is_write=False).denial == "Remap table failure"
    with pytest.raises(ConfigError, match="rewrite_max_steps: 10 rules"):
        compiled(rules, 9)


def test_fields_comments_and_labels() -> None:
    text = b"\n  # all of it\n\tr\t\\ \\#\t\\#\\  # behind\r\nr a#b\n:end of it\n"
    source = parse_map(text, "map")
    assert [(rule.where, rule.pattern, rule.replacement, rule.label) for rule in source.rules] == [
        ("line 3", b"\\ \\#", b"\\#\\ ", None),
        ("line 4", b"a", b"", None),
        ("line 5", b"", b"", b"end"),
    ]


PAIRS = ("r~", "ra", "rj", "aj", "as", "ej", "ae", "es", "eE", "Ej", "aE", "Es", "rgi~")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x a", '"x" is no operation'),
        ("r", '"r" has no regular expression; write "^"'),
        ("r # a", "no regular expression"),
        ("j a", '"j" names no label'),
        ("j a nowhere", 'no label "nowhere"; add a line ":nowhere"'),
        (r"r (a)\1 b", "refers back to a group"),
        ("r (a b", '"(" has no end'),
        ("r a\0 b", "NUL"),
        *((pair + " a b", "cannot be combined") for pair in PAIRS),
    ],
)
def test_faulty_line_is_named_with_a_remedy(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(f"r a b\n{line}\n")
    assert re.match(r"map: line 2: .*", str(caught.value))
    assert said in str(caught.value)


def test_every_faulty_line_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        compiled("q a\nr a b\nr [ b\n")
    assert [line[:11] for line in str(caught.value).splitlines()] == ["map: line 1", "map: line 3"]
    with pytest.raises(ConfigError) as caught:
        compiled("j ^ nowhere\nr a b\nr (a{1000}){1000} b\n")
    assert [line[:11] for line in str(caught.value).splitlines()] == ["map: line 1", "map: line 3"]


def test_only_what_another_client_would_be_told_too_holds_for_all() -> None:
    rules = compiled(r"r ^own/ own/\i/" + "\n6r ^v6/ six/\n")
    assert not rules.apply("own/a", V4, is_write=False).holds_for_all
    assert not rules.apply("v6/a", V4, is_write=False).holds_for_all  # a client of IPv6 gets another file
    assert rules.apply("all/a", V4, is_write=False).holds_for_all
    assert rules.apply("own/a", V6, is_write=False).names == (f"own/{V6}/a",)  # and nothing of it is remembered
    assert rules.apply("v6/a", V6, is_write=False).names == ("six/a",)


def test_what_is_remembered_is_bounded_and_is_not_mixed_up() -> None:
    rules = compiled("rG ^ read/\nrP ^ write/")
    for number in range(3000):
        for _ in range(2):
            assert rules.apply(str(number), V4, is_write=False).names == (f"read/{number}",)
            assert rules.apply(str(number), V4, is_write=True).names == (f"write/{number}",)
    assert all(len(remembered) <= 1024 for remembered in rules._remembered.values())


def test_names_are_bytes() -> None:
    assert becomes(rb"r ^. x", "\udcff\udcfe") == "x\udcfe"
    assert becomes("r ä ö", "grün-ä") == "grün-ö"
    assert becomes("r ^.*$ \\U\\0", "grün") == "GRüN"


def test_files_in_use() -> None:
    assert becomes(DEBIAN, "C:\\Boot\\a#1") == "/Boot/a@1"
    assert becomes(DEBIAN, "ok/x.pvt") == "ok/x.pvt"
    assert becomes(IRONIC, "pxelinux.0") == "/tftpboot/pxelinux.0"
    assert becomes(IRONIC, "/tftpboot/pxelinux.0") == "/tftpboot/pxelinux.0"


CATASTROPHES = (
    r"r (a*)*(b*)*(c|a*)*$ x",
    r"r ^(a+)+$ x",
    r"r (a?){100}a{100}$ x",
    r"r ((a|b|c)*[ab]){20}z x",
    r"r (.*)(.*)(.*)(.*)(.*)[^a]$ \5\4\3\2\1",
    r"rg (aa) a\1",
    r"rgg a? \0\0",
)


@pytest.mark.parametrize("rule", CATASTROPHES)
def test_no_name_takes_long_whatever_the_expression(rule: str) -> None:
    rules = compiled(rule)
    for name in ("a" * 508, "ab" * 254, "a" * 507 + "!", "/".join("aa" * 100)[:508]):
        began = time.process_time()
        rules.apply(name, V4, is_write=False)
        assert time.process_time() - began < 0.5  # some milliseconds; without a bound it is years


@given(st.data())
def test_any_program_ends_for_any_name(data: st.DataObject) -> None:
    flags = ["r", "rg", "rgg", "ri", "re", "rE", "rs", "e", "s", "a", "j", "~e", "~s", "~j", "rG", "rP", "r4", "E"]
    expressions = ["^", "a", "(a|b)", ".*", "a*", "b$", "/", "[^/]+", "(.)(.)", ""]
    texts = ["", "a", r"\0\0", r"\1", r"\2\1", "/", "b", r"\U\0", r"\x"]
    lines = data.draw(st.lists(st.tuples(*map(st.sampled_from, (flags, expressions, texts))), max_size=6))
    text = "\n".join(f"{flag} {expression or '^'} {text or 'a'}" for flag, expression, text in lines) + "\n:a\n:b\n:/\n"
    try:
        rules = compiled(text, 200)
    except ConfigError as error:
        assert "no label" in str(error)  # noqa: PT017
        return
    name = data.draw(st.text("ab/", max_size=30))
    rewritten = rules.apply(name, V4, is_write=False)
    assert all(len(found) <= MAX_NAME_BYTES for found in rewritten.names)
    assert bool(rewritten.names) or rewritten.denial is not None
    assert rules.apply(name, V4, is_write=False, note=lambda *_: None) == rewritten


def test_two_hundred_rules_cost_one_look() -> None:
    """They may not add more than a third to what a request costs that Python decides (some 40 µs)."""
    lines = [f"r ^vendor{at}/(.*)\\.bin$ v{at}/\\1" if at % 2 else f"e ^ok{at}/.*\\.(efi|cfg)$" for at in range(200)]
    many, one = compiled("\n".join(lines)), compiled(lines[0])
    names = [f"pxelinux.cfg/01-{random.Random(at).randbytes(6).hex('-')}" for at in range(500)]

    def cost_s(rules: Rewrites) -> float:
        def once() -> float:
            rules._remembered[False].clear()
            began = time.process_time()
            for name in names:
                rules.apply(name, V4, is_write=False)
            return time.process_time() - began

        return min(once() for _ in range(9))

    assert cost_s(many) < 4 * cost_s(one)


def test_stars_upon_stars_are_refused_or_run() -> None:
    assert becomes("r a" + "*" * 50 + " x", "aa") == "x"
    with pytest.raises(ConfigError, match="line 1"):
        compiled("r a" + "*" * 5000 + " x")
