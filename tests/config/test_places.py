"""Each problem names its place: the file and line, the environment variable, or the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.config.layers import located
from snow_owl_tftp.config.load import gather, load, override, settle
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError


def written(folder: Path, text: str, **drop_ins: str) -> Path:
    file = folder / "snow-owl.toml"
    file.write_text(text)
    (folder / "conf.d").mkdir()
    for name, more in drop_ins.items():
        (folder / "conf.d" / f"{name}.toml").write_text(more)
    return file


def problems(path: Path | None, **more: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(path, **more)
    return str(refused.value).replace(f"{path.parent if path else ''}/", "").splitlines()


def test_every_problem_has_its_file_and_line(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '\nworkers = 0\n[[rules]]\nallow = ["reed"]\n[options]\n',
        a="[[rules]]\nroots = 3\n",
        b="[options]\nmax_blksize_byte = 2\n",
    )

    assert problems(file) == [
        'snow-owl.toml:2: workers: expected 1..64 or "auto", got 0',
        (
            "snow-owl.toml:4: rules[1].allow: expected a list of texts, each one of "
            '"read", "write", "overwrite" or "ignore", got [\'reed\']'
        ),
        "conf.d/a.toml:2: rules[2].roots: expected a list of texts, got 3",
        "conf.d/b.toml:2: options.max_blksize_byte: unknown key; did you mean options.max_blksize_bytes?",
    ]


def test_contradiction_stands_where_its_key_does(tmp_path: Path) -> None:
    file = written(tmp_path, "single_port = true\n", a='\ntid_ports = "7000-7100"\n')

    assert problems(file) == ["conf.d/a.toml:2: tid_ports: has no effect with single_port = true; remove one of them"]


def test_environment_and_flags_are_named(tmp_path: Path) -> None:
    environ = {"SNOW_OWL_TFTP__LOGGING__LEVEL": "loud", "SNOW_OWL_TFTP__NO_SUCH": "1", "OTHER": "x"}

    assert problems(None, environ=environ, flags={"workers": 0}) == [
        'SNOW_OWL_TFTP__LOGGING__LEVEL: logging.level: expected one of "debug", "info", "warning", "error", got "loud"',
        "SNOW_OWL_TFTP__NO_SUCH: no_such: unknown key; remove it",
        'command line: workers: expected 1..64 or "auto", got 0',
    ]


def test_what_is_missing_is_missing_from_its_table(tmp_path: Path) -> None:
    file = written(tmp_path, 'workers = 1\n[[templates]]\ntemplate = "a"\n')

    assert problems(file) == ["snow-owl.toml:2: templates[1].match: missing; expected a text"]


def test_later_layers_win_and_lists_of_tables_grow(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'workers = 2\nroot_dir = "/file"\n[logging]\nlevel = "debug"\n[[rules]]\npaths = ["1"]\n',
        b='root_dir = "/b"\n[[rules]]\npaths = ["3"]\n',
        a='root_dir = "/a"\n[logging]\nformat = "json"\n[[rules]]\npaths = ["2"]\n',
    )
    environ = {"SNOW_OWL_TFTP__WORKERS": "3", "SNOW_OWL_TFTP__DRAIN_TIMEOUT_S": "4"}

    settings = load(file, environ=environ, flags={"workers": 5, "single_port": None})

    assert (settings.root_dir, settings.workers, settings.drain_timeout_s) == ("/b", 5, 4)
    assert (settings.logging.level, settings.logging.format) == ("debug", "json")
    assert [rule.paths for rule in settings.rules] == [("1",), ("2",), ("3",)]


def test_what_is_overridden_is_replaced_lists_of_tables_too() -> None:
    settings = override(Settings(), {"rules": [{"paths": ["1"]}]})

    assert [rule.paths for rule in override(settings, {"rules": [{"paths": ["2"]}]}).rules] == [("2",)]
    assert override(settings, {"rules": []}).rules == ()


def test_place_of_what_is_in_force(tmp_path: Path) -> None:
    file = written(tmp_path, 'workers = 2\n[[rules]]\npaths = ["1"]\n', a='[[rules]]\n\npaths = ["2"]\n')
    layers = gather(file, environ={"SNOW_OWL_TFTP__WORKERS": "3"})
    settle(layers)

    assert located(layers, "workers") == "SNOW_OWL_TFTP__WORKERS"
    assert located(layers, "rules[1].paths") == f"{file}:3"
    assert located(layers, "rules[2].paths") == f"{tmp_path}/conf.d/a.toml:3"


@pytest.mark.parametrize(
    ("name", "text", "of"),
    [
        ("BIND_ADDR", "127.0.0.1:69", lambda settings: settings.bind_addr == "127.0.0.1:69"),
        ("BIND_ADDR", '["127.0.0.1:69"]', lambda settings: settings.bind_addr == ("127.0.0.1:69",)),
        ("ROOT_DIR", "1", lambda settings: settings.root_dir == "1"),
        ("WORKERS", "auto", lambda settings: settings.workers == "auto"),
        ("SINGLE_PORT", "true", lambda settings: settings.single_port is True),
        ("WRITE_CONFIG__FILE_MODE", "0o600", lambda settings: settings.write_config.file_mode == 0o600),
        (
            "PERFORMANCE__PLATFORM__BATCH__MAX_BATCH_SIZE",
            "7",
            lambda s: s.performance.platform.batch.max_batch_size == 7,
        ),
    ],
)
def test_variable_is_toml_where_that_fits_and_else_text(name: str, text: str, of: Any) -> None:
    assert of(load(None, environ={f"SNOW_OWL_TFTP__{name}": text}))


def test_nothing_given_is_the_default() -> None:
    assert load(None, environ={"PATH": "/bin"}) == Settings()


def test_templates_lie_beside_the_file_that_names_them(tmp_path: Path) -> None:
    entry = '[[templates]]\nmatch = "x"\ntemplate = "x.j2"\n'
    file = written(tmp_path, entry, a=entry)

    assert [one.template for one in load(file).templates] == [f"{tmp_path}/x.j2", f"{tmp_path}/conf.d/x.j2"]


def test_template_dir_of_one_file_is_for_all(tmp_path: Path) -> None:
    file = written(tmp_path, 'template_dir = "/t"\n', a='[[templates]]\nmatch = "x"\ntemplate = "x.j2"\n')

    assert [one.template for one in load(file).templates] == ["x.j2"]


def test_drop_in_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, "", a="workers =\n")

    assert problems(file)[0].startswith("conf.d/a.toml:1: not TOML: ")
