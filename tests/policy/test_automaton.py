"""Many globs at once match what each alone does, and no name makes more work than its length."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy import automaton as automata
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.policy.automaton import Automaton, many
from snow_owl_tftp.policy.captures import NamePatterns
from snow_owl_tftp.policy.globs import tokens_of
from snow_owl_tftp.policy.machines import NO_MACHINES
from snow_owl_tftp.policy.patterns import PathPatterns
from snow_owl_tftp.policy.rule import Question
from snow_owl_tftp.policy.ruleset import RuleSet
from snow_owl_tftp.protocol.options import OptionLimits

LONGEST = 503
"""A request of 512 bytes is an opcode, a name, a mode and two NUL."""


@dataclass
class Asked:
    peer: tuple[str, int] = ("192.0.2.1", 2000)
    local_address: str | None = None
    endpoint: int = 0


# ---- the same answer


def plainly(pattern: str) -> re.Pattern[str]:
    """A glob in the simplest words, which search for ever in the worst case; a variable is in the group of its name."""
    words = {"**/": "(?:.*?/)??", "**": ".*?", "*": "[^/]*?", "?": "[^/]", "[!a]": "[^a/]", "[a-c]": "[a-c]"}
    hexadecimal = "[0-9A-Fa-f]"
    words["{mac_plain}"] = f"(?P<mac_plain>{hexadecimal}{{12}})"
    words["{address_hex}"] = f"(?P<address_hex>{hexadecimal}{{8}})"
    words |= {f"{{{name}}}": rf"(?P<{name}>[^/\x00-\x1f\x7f]+?)" for name in "xyz"}
    tokens = re.compile(r"(?:(?<=/)|^)\*\*/|\*\*|\*|\?|\[!a\]|\[a-c\]|\{\w+\}|.", re.DOTALL).findall(pattern)
    return re.compile("".join(words.get(token) or re.escape(token) for token in tokens), re.DOTALL)


PIECES = ["a", "b", "ab", "/", "-", "é", "\udce9", "*", "**", "**/", "?", "[!a]", "[a-c]", "/**/", "*a", "*/"]
GLOBS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "/", "-", "é", "ü", "\udce9", "\n", "c", "aa/"]), max_size=12)
PATHS = TEXTS.map(lambda texts: "/".join(filter(None, "".join(texts).split("/"))) or "a")


def is_valid(glob: str) -> bool:
    try:
        tokens_of(glob)
    except ConfigError:
        return False
    return True


@settings(max_examples=200)
@given(st.lists(st.lists(GLOBS, max_size=3), max_size=6), st.lists(PATHS, min_size=1, max_size=8))
@example([["**/**"], ["**/**/a"], ["a/**/a"], ["a/**/**/a"]], ["a", "a/a", "a/b/a", "aa/a", "a/ba"])
@example([["**/*?b*"], ["a**/a"], ["**a/b*b"]], ["ab/ab", "a/a", "ba/bb", "aab/b/b"])
def test_automaton_finds_exactly_the_lists_of_which_a_glob_matches(lists: list[list[str]], paths: list[str]) -> None:
    valid = [[glob for glob in globs if is_valid(glob)] for globs in lists]
    automaton = Automaton([[tokens_of(glob) for glob in globs] for globs in valid])
    for path in paths:
        expected = [
            number
            for number, globs in enumerate(valid)
            if not globs or any(plainly(glob.removeprefix("/")).fullmatch(path) for glob in globs)
        ]
        assert list(automaton.of(path)) == expected, path
        assert automaton.matches(path) is bool(expected)
        data = path.encode("utf-8", "surrogateescape")
        tried = [number for number, globs in enumerate(valid) if not globs or PathPatterns(globs).match(data)]
        assert tried == expected


VARIABLES = st.lists(
    st.sampled_from([*PIECES, "{x}", "{y}", "{z}", "{mac_plain}", "{address_hex}"]), min_size=1, max_size=7
)
CLAIMS = st.lists(
    st.sampled_from(["a", "b", "/", "-", "0a1b2c3d", "0A1B2C3D4E5F", "aa/", "é", "ab"]), min_size=1, max_size=9
).map(lambda texts: "/".join(filter(None, "".join(texts).split("/"))) or "a")


@pytest.mark.parametrize("are_many", [False, True])
@given(patterns=st.lists(VARIABLES.map("".join), max_size=4), path=CLAIMS)
@settings(max_examples=150)
def test_first_template_is_found_with_what_a_plain_search_captures(
    are_many: bool, patterns: list[str], path: str
) -> None:
    valid = [pattern for pattern in patterns if _is_template(pattern)]
    # So many that match nothing that an automaton is made of all of them.
    padding = [f"no/such/{'x' * 30}{{name}}-{number}" for number in range(10)] if are_many else []
    found = NamePatterns([*padding, *valid]).find(path.encode())
    matches = [plainly(pattern.removeprefix("/")).fullmatch(path) for pattern in valid]
    expected = next(((at, match.groupdict()) for at, match in enumerate(matches) if match is not None), None)
    assert (found and (found.number - len(padding), dict(found.variables))) == expected


def _is_template(pattern: str) -> bool:
    try:
        NamePatterns([pattern])
    except ConfigError:
        return False
    return "\udce9" not in pattern


def test_few_globs_are_tried_one_by_one() -> None:
    assert many([[tokens_of("**/boot/*.cfg")]] * 10) is None
    assert many([[tokens_of("**/boot/*.cfg")]] * 50) is not None


@pytest.mark.parametrize("path", ["a\x01b", "x\n", "a/\x7f/b"])
def test_path_with_a_control_character_has_no_variable_of_any_name(path: str) -> None:
    assert NamePatterns(["{x}", "**/{x}", "**{x}**", "**-{mac}"]).find(path.encode()) is None
    assert NamePatterns(["**{x}**", "**"]).find(path.encode()) == (1, {})


# ---- the cost of a name, in steps

REPEATED = ["a", "a/", "\udcff", "sw-", "sw-/", "sw-a-b.cf/", "-7", "012345678", "é", "ab", "1.1.1.1.", "a-b/", "\x01"]
NAMES = [(piece * LONGEST)[:LONGEST] for piece in REPEATED]
NAMES += ["-" * 500 + "/b", "a" * 250 + "/" + "a" * 254, "".join(f"-{n}-" for n in range(130))[:LONGEST]]
RULE_GLOBS = [
    "**/sw-*-{n}*.cfg",
    "rack{n}*/**",
    "**/*{n}",
    "*{n}*/**/x*y",
    "**/[a-z]*[0-9]*-{n}.bin",
    "**/**?*[ab]{n}",
    "**?*?*[ab]",
    "**a*b**c*{n}",
    "**/*????????????????????a{n}",
]
TEMPLATES = ["**{a}/**{b}/**{n}", "**{a}/**{b}", "**/{a}-{b}-{c}-{n}", "**{address}*x{n}", "**{a}????????x{n}"]


class Counted(dict[str, tuple[int, int]]):
    """The masks of an automaton, and how often one was asked for: each time is a step."""

    steps = 0

    def __init__(self, masks: dict[str, tuple[int, int]]) -> None:
        super().__init__(masks)
        self.masks = masks

    def __getitem__(self, character: str) -> tuple[int, int]:
        self.steps += 1
        return self.masks[character]


@pytest.mark.parametrize("glob", RULE_GLOBS)
def test_name_takes_a_step_of_all_globs_for_each_character_whatever_it_is(glob: str) -> None:
    automaton = Automaton([[tokens_of(glob.replace("{n}", str(number)))] for number in range(1000)])
    assert automaton.places <= 1000 * (len(glob) + 3)
    automaton._masks = counted = Counted(automaton._masks)  # type: ignore[assignment]
    for name in NAMES:
        counted.steps = 0
        automaton.matches(name)
        assert counted.steps <= len(name)


@pytest.mark.parametrize("template", TEMPLATES)
def test_of_fifty_templates_one_at_most_is_tried_by_itself(template: str) -> None:
    patterns = NamePatterns(template.replace("{n}", str(number)) for number in range(50))
    tried: list[int] = []

    class Watched:
        def __init__(self, number: int, pattern: re.Pattern[str]) -> None:
            self.number, self.pattern = number, pattern

        def fullmatch(self, text: str) -> re.Match[str] | None:
            tried.append(self.number)
            return self.pattern.fullmatch(text)

    patterns._patterns = [Watched(number, one) for number, one in enumerate(patterns._patterns)]  # type: ignore[misc]
    for name in NAMES:
        tried.clear()
        patterns._search(name.encode("utf-8", "surrogateescape"))
        assert len(tried) <= 1, name


# ---- the cost of a name, in time

MOST_S = 0.004
"""CPU of whatever is decided about one name; measured: 0.6 ms at most, for a thousand rules."""


def least_s(call: Callable[[], object]) -> float:
    """CPU, of the best of a few: what a busy machine adds is no cost of the name."""
    used = []
    for _ in range(3):
        began_s = time.thread_time()
        call()
        used.append(time.thread_time() - began_s)
    return min(used)


@pytest.mark.parametrize("glob", RULE_GLOBS)
def test_no_name_is_long_compared_with_a_thousand_globs(glob: str) -> None:
    globs = [glob.replace("{n}", str(number)) for number in range(1000)]
    listed = [{"paths": [text], "allow": []} for text in globs]
    rules = RuleSet(override(Settings(), {"rules": listed}).rules, OptionLimits())
    allowed = PathPatterns(globs)
    names = NAMES if glob in RULE_GLOBS[:2] else NAMES[::4]
    for name in (text.encode("utf-8", "surrogateescape") for text in names):
        question = Question(Asked(), Listening(), NO_MACHINES, (name,))
        assert least_s(lambda name=name, question=question: rules.first_that_fits(question, name)) < MOST_S, name
        assert least_s(lambda name=name: allowed.match(name)) < MOST_S, name


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_name_is_long_compared_with_fifty_templates(template: str) -> None:
    patterns = NamePatterns(template.replace("{n}", str(number)) for number in range(50))
    for name in (text.encode("utf-8", "surrogateescape") for text in NAMES):
        assert least_s(lambda name=name: patterns._search(name)) < MOST_S, name


@pytest.mark.parametrize("glob", ["**?*?*[ab]", "**/**?*[ab]", "**a*b**c*d**e", "**/*" + "?" * 40 + "a", "**?*" * 20])
def test_no_name_is_long_compared_with_a_few_globs(glob: str) -> None:
    assert len(glob) <= automata._MANY_STEPS
    patterns = PathPatterns([glob])
    for name in (text.encode("utf-8", "surrogateescape") for text in NAMES):
        assert least_s(lambda name=name: patterns.match(name)) < MOST_S, name
