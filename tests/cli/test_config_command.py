"""`snow-owl-tftp config`: the steps, their words and exit statuses."""

import json
from pathlib import Path

import pytest
from tests.support.server import run_command

from snow_owl_tftp.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["config", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_file_to_begin_with_is_good_and_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "snow-owl.toml"

    assert run(capsys, "init", file)[0] == 0
    file.write_text(f'root_dir = "{tmp_path}"\n' + (text := file.read_text()))
    assert run(capsys, "check", file) == (0, "no problems found\n", "")
    file.write_text(text)
    assert run(capsys, "init")[1] == file.read_text()
    status, _, err = run(capsys, "init", file)
    assert status == 2
    assert err == f"snow-owl-tftp: {file}: File exists; name another file, or remove this one\n"


def test_every_problem_is_a_line_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "snow-owl.toml"
    file.write_text("workers = 0\n\n[limits]\nmax_transfer = 1\n")

    assert run(capsys, "check", file) == (
        2,
        "",
        (
            f'snow-owl-tftp: {file}:1: workers: expected 1..64 or "auto", got 0\n'
            f"snow-owl-tftp: {file}:4: limits.max_transfer: unknown key; did you mean limits.max_transfers?\n"
        ),
    )


def test_what_has_no_effect_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "snow-owl.toml"
    file.write_text(f'root_dir = "{tmp_path}"\n[logging]\naudit_file = "/a"\n[performance]\nbuffer_pool_size = 3\n')

    assert run(capsys, "check", file) == (
        0,
        (
            "no effect: performance.buffer_pool_size\n"
            f"no effect: {file}:3: logging.audit_file; set logging.audit_enabled = true, or remove it\n"
            "no problems found\n"
        ),
        "",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('root_dir = "/no/such"\n', ":1: root_dir: /no/such: No such file or directory; name a directory"),
        ('[[rules]]\n\npaths = ["a["]\n', ":4: rules[1].paths: "),
        ('[[rewrite]]\npattern = "("\n', ":2: rewrite[1]: "),
        ('[machines]\ninventory = "/no/such.toml"\n', ":3: machines.inventory: /no/such.toml: "),
        ('[logging]\nfile = "FOLDER/log"\n', ":3: logging.file: "),
        ('[[templates]]\nmatch = "x"\ntemplate = "no.j2"\n', ":2: templates: "),
        ('[write_config]\nallowed_patterns = ["a//b"]\n', ":3: write_config.allowed_patterns: "),
    ],
)
def test_what_only_a_start_finds_out_has_its_place_too(
    text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root").mkdir()
    file = tmp_path / "snow-owl.toml"
    root = "" if text.startswith("root_dir") else f'root_dir = "{tmp_path}/root"\n'
    file.write_text(root + text.replace("FOLDER", f"{tmp_path}/root"))

    status, out, err = run(capsys, "check", file)

    assert (status, out) == (2, "")
    assert err.startswith(f"snow-owl-tftp: {file}{problem}")
    assert len(err.splitlines()) == 1
    ended = run_command("--config", str(file), "--bind", "127.0.0.1:0")
    assert (ended.returncode, ended.stderr) == (2, err)


def test_where_each_value_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNOW_OWL_TFTP__LOGGING__LEVEL", "debug")
    file = tmp_path / "snow-owl.toml"
    file.write_text("\nworkers = 2\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "site.toml").write_text("single_port = true\n")

    lines = run(capsys, "show", "--origin", file)[1].splitlines()

    assert f"workers = 2  # {file}:2" in lines
    assert f"single_port = true  # {tmp_path}/conf.d/site.toml:1" in lines
    assert 'level = "debug"  # SNOW_OWL_TFTP__LOGGING__LEVEL' in lines
    assert 'format = "text"  # default' in lines
    assert "workers = 2" in run(capsys, "show", file)[1].splitlines()


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "schema")

    assert status == 0
    assert "root_dir" in json.loads(out)["$defs"]["Settings"]["properties"]


def test_page_of_settings_is_what_the_program_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs/settings.md"

    assert run(capsys, "schema", "--markdown")[1] == page.read_text(), (
        "snow-owl-tftp config schema --markdown > docs/settings.md"
    )


def test_differences_are_named_with_both_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text("workers = 2\n[limits]\nmax_transfers = 7\n")
    new.write_text('workers = "auto"\n[limits]\nmax_transfers = 7\n')

    assert run(capsys, "diff", old, new) == (
        1,
        'workers: 2 -> "auto"\n',
        "",
    )
    assert run(capsys, "diff", new) == (1, 'limits.max_transfers: 200000 -> 7\nworkers: 1 -> "auto"\n', "")
    assert run(capsys, "diff", old, old) == (0, "", "")
