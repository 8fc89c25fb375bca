"""[[templates]] and [[handlers]] in a file: what is refused, by number and key, and where a template lies."""

import re
from pathlib import Path

import pytest

from snow_owl_tftp.config.check import without_effect
from snow_owl_tftp.config.load import load, override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError

ONE = '[[templates]]\nmatch = "x"\ntemplate = "a.j2"\n'


def written(tmp_path: Path, toml: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(toml)
    return path


def test_template_lies_beside_its_configuration_unless_there_is_a_directory(tmp_path: Path) -> None:
    (entry,) = load(written(tmp_path, ONE)).templates
    assert (entry.match, entry.template) == ("x", str(tmp_path / "a.j2"))
    (entry,) = load(written(tmp_path, ONE.replace("a.j2", "/etc/a.j2"))).templates
    assert entry.template == "/etc/a.j2"
    (entry,) = load(written(tmp_path, f'template_dir = "t"\n{ONE}')).templates
    assert entry.template == "a.j2"


def test_flags_leave_entries_as_they_are(tmp_path: Path) -> None:
    settings = load(written(tmp_path, ONE))
    assert override(settings, {"workers": 2}).templates == settings.templates


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("templates = 5", "templates: expected tables, each [[templates]], got 5"),
        ("templates = [5]", "templates: expected tables, each [[templates]], got [5]"),
        ('[templates]\nmatch = "x"', "templates: expected tables, each [[templates]], got {"),
        ('[[templates]]\ntemplate = "x"', "templates[1].match: missing; expected a text"),
        (f"{ONE}[[templates]]\nmatch = 5", "templates[2].match: expected a text, got 5"),
        (f"{ONE}temlpate = 1", "templates[1].temlpate: unknown key; did you mean templates[].template?"),
        ('[[handlers]]\nmatch = "x"', "handlers[1].handler: missing; expected a text"),
        (
            '[[handlers]]\nmatch = "x"\nhandler = "a/b:c"',
            'handlers[1].handler: expected "module:function", got "a/b:c"',
        ),
        ("template_dir = 5", "template_dir: expected a text, got 5"),
        ('template_dir = "t"\n' + ONE.replace("a.j2", "b/../../a.j2"), "templates[1].template: "),
        (ONE * 1001, "templates: 1001 of them; 1000 is the most"),
    ],
)
def test_wrong_entry_is_refused_by_number_and_key(tmp_path: Path, toml: str, problem: str) -> None:
    path = written(tmp_path, toml)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert re.match(rf"{re.escape(str(path))}(:\d+)?: {re.escape(problem)}", str(caught.value).splitlines()[-1])


def test_template_dir_needs_templates(tmp_path: Path) -> None:
    assert without_effect(override(Settings(), {"template_dir": "t"})) == {
        "template_dir": "add [[templates]], or remove it"
    }
    assert without_effect(load(written(tmp_path, f'template_dir = "t"\n{ONE}'))) == {}
