"""What chance may put together to get out of a root: who asks, roots, rewriting, names.

    @given(setting=SETTINGS, name=NAMES)

May know: Hypothesis, how settings are written, and the scene of `escape_scene`. Must not: know what is right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from snow_owl_tftp.policy.machines import Machine

__all__ = ["CLIENT", "NAMES", "SETTINGS", "VARIABLES", "Setting"]

CLIENT = "127.0.1.1"


@dataclass
class Setting:
    """One configuration, and who asks under it."""

    values: Mapping[str, str]
    roots: Sequence[str]
    rewrite: Sequence[tuple[str, str, bool, bool]]
    map_lines: Sequence[str]
    names: Mapping[str, object]
    folder: bytes

    def find(self, asker: object, paths: tuple[bytes, ...] = ()) -> Machine:
        """A machine may be called anything, as far as rules and roots know."""
        fixed = {key: value for key, value in self.values.items() if key != "dir"}
        return Machine(**fixed, vars={"dir": self.values["dir"]})


ATOMS = ("..", ".", "", "Sub", "Deep", "Out", "up", "climb", "leak", "Loop", "In", "place", "back", "file", "secret")
MORE = (
    "outside",
    "etc",
    "passwd",
    "common",
    "by",
    "good",
    "machines",
    ".git",
    "config",
    "{root}",
    "{base}",
    "proc",
    "K",
)
ODD = (
    "\udcff",
    "\r\n",
    " ",
    "é",
    "%2e%2e",
    "\udcc0\udcae",
    "x" * 200,
    "hard",
    "chain",
    "Fds",
    "3",
    "SUB",
    "File",
    "OUT",
)
PARTS = st.sampled_from([*ATOMS, *MORE, *ODD])
GOOD_NAMES = st.sampled_from(
    ["file", "Sub/File", "common/file", "Sub/Deep/Kernel", "K", "place/x", "In/File", "back/file"]
)
TRICKS = st.builds(
    lambda first, parts, between: (first + between.join(parts))[:300],
    st.sampled_from(["", "/", "\\", "C:\\", "//"]),
    st.lists(PARTS, min_size=1, max_size=7),
    st.sampled_from(["/", "/", "/", "\\", "//", ""]),
)
NAMES = st.one_of(GOOD_NAMES, TRICKS, TRICKS)
VALUES = st.one_of(
    st.just("good"),
    st.sampled_from(
        ["good", "Out", "up", "climb", "Loop", "..", ".", "", "a/../..", "/etc", "\\..", "\0", "\ud800", "é" * 150]
    ),
    st.lists(st.sampled_from(["..", "/", "\\", "Out", "good", ".", "\x85", "\udcff", "~"]), max_size=4).map("".join),
)
VARIABLES = ("dir", "name", "group", "serial", "uuid", "mac")
MACHINES = st.fixed_dictionaries(dict.fromkeys(VARIABLES, VALUES))
FILLED = st.sampled_from([f"{{{name}}}" for name in (*VARIABLES, "address", "address_hex")])
PIECES = st.one_of(FILLED, FILLED, st.sampled_from(["by", "machines", "way", "Out"]))
# An absolute root, as far as it is written down, is the operator's own choice of a directory, as root_dir is.
ROOTS = st.one_of(
    st.sampled_from(["common", ".", "by/good", "Sub", "Loop/common", "In", "{base}/absolute", "Out", "way"]),
    st.lists(PIECES, min_size=1, max_size=3).map("/".join),
    st.lists(PIECES, min_size=2, max_size=2).map("".join),
    FILLED.map(lambda piece: "{base}/absolute/" + piece),
)
PATTERNS = st.sampled_from(
    [r"^(.*)$", r"\.\.", "/", r"^([^/]*)/(.*)$", "^", "$", "(S)ub", r"(.)(.)", "%2e", "file", r"\\"]
)
INTO = (
    "..",
    "../",
    "/",
    r"\0",
    r"\1",
    r"\2",
    r"\9",
    r"\i",
    r"\x",
    r"\U",
    r"\L",
    r"\E",
    "Out",
    "leak",
    "outside/secret",
    r"\\",
)
REPLACEMENTS = st.lists(st.sampled_from([*INTO, "Sub", "file", "{base}"]), max_size=5).map("".join)
REWRITES = st.one_of(
    st.just([]), st.lists(st.tuples(PATTERNS, REPLACEMENTS, st.booleans(), st.booleans()), min_size=1, max_size=3)
)
MAP_LINE = st.builds(
    lambda operation, pattern, into: f"{operation} {pattern} {into}",
    st.sampled_from(["r", "rg", "rgg", "rE", "ri", "re", "rs"]),
    PATTERNS,
    REPLACEMENTS,
)
MAP_LINES = st.one_of(st.just([]), st.lists(MAP_LINE, min_size=1, max_size=3))
NAMINGS = st.fixed_dictionaries(
    {
        "case": st.sampled_from(["exact", "lower", "exact", "insensitive"]),
        "strip_root": st.booleans(),
        "encodings": st.sampled_from([[], ["latin-1", "cp437"]]),
        "siblings": st.sampled_from([[], ["*"]]),
        "cut": st.sampled_from([[], ["ff", "blanks", "controls"]]),
    }
)
FOLDERS = st.sampled_from([b"Sub/x", b"Sub/Deep/x", b"../x", b"Out/x", b"Sub/../../x", b"x"])
SETTINGS = st.builds(Setting, MACHINES, st.lists(ROOTS, max_size=4), REWRITES, MAP_LINES, NAMINGS, FOLDERS)
