"""Configurations that the program writes: they are good, and mean what they show."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from tests.test_config import ALL_KEYS

from snow_owl_tftp.config.check import check
from snow_owl_tftp.config.load import load, override
from snow_owl_tftp.config.paths import is_table, table_of_list
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.config.schema_json import json_schema
from snow_owl_tftp.config.words import words_of
from snow_owl_tftp.config.written import commented, shown


def nothing(path: str) -> str:
    return ""


def test_file_to_begin_with_changes_nothing() -> None:
    assert check(tomllib.loads("\n".join(commented(Settings))), "init") == Settings()


def test_every_key_in_it_can_be_taken_over_as_it_stands() -> None:
    text = "\n".join(commented(Settings)).partition("# [[rewrite]]")[0]
    keys = re.sub(r"^# (\w+ =)", r"\1", text, flags=re.MULTILINE)

    assert len(tomllib.loads(keys)) > 10
    assert check(tomllib.loads(keys), "init") == Settings()


def test_what_is_shown_brings_about_the_same(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(ALL_KEYS)
    settings = load(file)

    assert check(tomllib.loads("\n".join(shown(settings, nothing))), "shown") == settings
    assert check(tomllib.loads("\n".join(shown(Settings(), nothing))), "shown") == Settings()


def test_every_key_shown_has_its_remark() -> None:
    asked: list[str] = []

    def remark(path: str) -> str:
        asked.append(path)
        return f"at {path}"

    settings = override(Settings(), {"rules": [{"allow": [], "options": {"patience_ms": 20}}]})
    lines = list(shown(settings, remark))

    assert "allow = []  # at rules[1].allow" in lines
    assert "options = { patience_ms = 20 }  # at rules[1].options" in lines
    assert "max_batch_size = 64  # at performance.platform.batch.max_batch_size" in lines
    assert len(asked) == len(set(asked)) == sum(" # at " in line for line in lines)


def test_every_key_has_a_description() -> None:
    def missing(table_type: type[Struct], prefix: str = "") -> Iterator[str]:
        words = words_of(table_type)
        for field in msgspec.structs.fields(table_type):
            inner = field.type if is_table(field.type) else table_of_list(field.type)
            if inner is not None:
                yield from missing(inner, f"{prefix}{field.name}.")
            elif field.name not in words:
                yield prefix + field.name

    assert not list(missing(Settings))


def test_descriptions_are_the_texts_below_the_fields() -> None:
    words = words_of(Settings)

    assert words["rewrite_file"].startswith("A map file of tftpd-hpa")
    assert "\n" not in "".join(words.values())


def test_json_schema_names_keys_ranges_and_words() -> None:
    schema = json_schema()
    limits = schema["$defs"]["RetransmitSettings"]

    assert limits["properties"]["ceiling_ms"]["maximum"] == 255_000
    assert limits["additionalProperties"] is False
    assert schema["$defs"]["LoggingSettings"]["properties"]["file"]["description"].startswith("Where lines go")
