"""What is written as TOML reads back as it was."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from snow_owl_tftp.config.toml_text import line_of_key

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(_VALUES)
def test_every_value_reads_back(value: Any) -> None:
    assert tomllib.loads(line_of_key("key", value, "said")) == {"key": value}


def test_remark_stands_behind() -> None:
    assert line_of_key("workers", 2, "here") == "workers = 2  # here"
    assert line_of_key("workers", 2) == "workers = 2"
