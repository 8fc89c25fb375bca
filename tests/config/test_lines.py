"""Where a key stands in a TOML file: the line that its statement begins on."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.config.lines import depth_of, line_of, parts_of

TEXT = '''# a comment
workers = 2

bind_addr = [
  "127.0.0.1:69",   # in the list
  "[::1]:69",
]
limits.max_transfers = 5
note = """
workers = 9
[limits]
"""

[write_config]  # the table
enabled = true

[[rules]]
paths = ["a"]
[[rules]]

allow = []
options = { max_blksize_bytes = 512, refuse = ["tsize"] }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("workers", 2),
        ("bind_addr", 4),
        ("limits", 8),
        ("limits.max_transfers", 8),
        ("note", 9),
        ("write_config", 14),
        ("write_config.enabled", 15),
        ("rules[1]", 17),
        ("rules[1].paths", 18),
        ("rules[2]", 19),
        ("rules[2].allow", 21),
        ("rules[2].options.max_blksize_bytes", 22),
    ],
)
def test_line_is_where_the_statement_begins(path: str, line: int) -> None:
    assert line_of(TEXT, parts_of(path)) == line


def test_windows_line_ends_and_no_line_end_at_all() -> None:
    assert line_of("a = 1\r\n\r\nb = [\r\n1]\r\nc = 3", parts_of("b")) == 3
    assert line_of("a = 1\r\n\r\nb = [\r\n1]\r\nc = 3", parts_of("c")) == 5


_STATEMENTS = st.lists(
    st.sampled_from(["# K = 1", "", "K = 1", "K = [\n1,\n\n2 ]", 'K = """\nK = 1\n[K]\n"""', "K = { a = 1 }"]),
    min_size=1,
    max_size=30,
)


@given(_STATEMENTS)
def test_every_key_of_any_file_is_found_where_it_was_written(statements: list[str]) -> None:
    lines, begins = [], {}
    for number, statement in enumerate(statements):
        key = f"key{number}"
        if statement.startswith("K"):
            begins[key] = len(lines) + 1
        lines += statement.replace("K", key).split("\n")
    text = "\n".join(lines)

    assert {key: line_of(text, [key]) for key in tomllib.loads(text)} == begins


@pytest.mark.parametrize(
    ("path", "depth"), [("a", 1), ("a.b", 2), ("a.b.c", 2), ("x", 0), ("l[1].y", 3), ("l[2].y", 1), ("a[1]", 1)]
)
def test_depth_is_how_far_a_path_leads(path: str, depth: int) -> None:
    assert depth_of({"a": {"b": 1}, "l": [{"y": 2}]}, parts_of(path)) == depth
