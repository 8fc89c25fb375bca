"""Templates: what they make, what they may cost, and what is told when they fail."""

import os
import re
import time
from collections import Counter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from tests.support.soak import many
from tests.support.swapper import swapping

from snow_owl_tftp.content.templates.check import check_sources
from snow_owl_tftp.content.templates.engine import MAX_TEXT_BYTES, Template, TemplateFailure
from snow_owl_tftp.content.templates.files import MAX_FILE_BYTES, read_templates
from snow_owl_tftp.errors import ConfigError

MACHINE: dict[str, Any] = {"name": "node7", "mac": None, "group": None, "vars": MappingProxyType({"release": "13"})}
FIELDS = {"machine": frozenset({"name", "mac", "group", "vars"})}


def template(source: str, **others: str) -> Template:
    return Template("/t", "a.j2", {"a.j2": source, **{f"{name}.j2": text for name, text in others.items()}})


def rendered(source: str, **others: str) -> str:
    return template(source, **others).render({"machine": dict(MACHINE), "mac_dashes": "52-54"}).decode()


def failure(source: str, **others: str) -> str:
    with pytest.raises(TemplateFailure) as caught:
        rendered(source, **others)
    return str(caught.value)


# ---- what they make


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain\n", "plain\n"),
        ("{{ machine.name }} {{ mac_dashes|upper|replace('-', ':') }}\n", "node7 52:54\n"),
        ("{% if machine.mac %}\nx\n{% else %}\ny\n{% endif %}\nz\n", "y\nz\n"),
        ("{{ machine.mac or 'unknown' }}", "unknown"),
        ("{% if machine.group == 'install' %}a{% else %}b{% endif %}", "b"),
        ("{{ machine.vars.release }}{{ machine.vars.get('x') or '' }}", "13"),
        ("{% for key, value in machine.vars.items() %}{{ key }}={{ value }}{% endfor %}", "release=13"),
        ("<{{ '&<' }}>", "<&<>"),
        ("none {{ machine.name }}", "none node7"),
        ("{# none #}ü", "ü"),
        ("{% include 'b.j2' %}", "of b: node7"),
        ("{% extends 'c.j2' %}{% block x %}mine{% endblock %}", "[mine]"),
        ("", ""),
    ],
)
def test_template_makes(source: str, expected: str) -> None:
    assert rendered(source, b="of b: {{ machine.name }}", c="[{% block x %}{% endblock %}]") == expected


# ---- what they are not told


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\n{{ machine.vars.nope }}\n", "/t/a.j2:2: machine.vars.nope is not known for this client"),
        ("{% if machine.vars.nope %}{% endif %}", "/t/a.j2:1: machine.vars.nope is not known for this client"),
        ("{{ nope }}", "/t/a.j2:1: nope is not known for this client"),
        ("a\n\n{{ machine.mac }}", "/t/a.j2:3: prints what is none for this client"),
        ("none\n{% set m = machine.mac %}\n{{ m }}", "/t/a.j2:3: prints what is none"),
        ("\n{% include 'b.j2' %}", "/t/b.j2:2: prints what is none"),
        ("{% include 'c.j2' %}", '/t/c.j2:4: undefined value in "x {{ machine.nope }}"'),
        ("{% include 'd.j2' %}", '/t/d.j2:1: undefined value in "{{ nope }}aaaa'),
        ("\n{{ 1 / 0 }}", "/t/a.j2:2: unable to calculate 1 / 0"),
        ("{{ machine.name.upper() }}", "/t/a.j2:1: string has no method named upper"),
        ("{{ machine.pop('x') }}", "/t/a.j2: KeyError: 'x'"),
        ("{{ machine.vars.clear() }}", "/t/a.j2: AttributeError: "),
        ("{{ debug() }}", "/t/a.j2:1: debug is unknown"),
    ],
)
def test_failure_names_file_line_and_what(source: str, expected: str) -> None:
    text = failure(source, b="\n{{ machine.mac }}", c="\n\n\n  x {{ machine.nope }}", d="{{ nope }}" + "a" * 500)
    assert text.startswith(expected)
    assert "\n" not in text
    assert len(text) < 200


def test_template_cannot_change_what_others_see() -> None:
    assert "clear" in failure("{{ machine.vars.clear() }}")
    assert "update" in failure("{{ machine.vars.update(a=1) }}")
    assert MACHINE["vars"] == {"release": "13"}


@pytest.mark.parametrize(
    "source", ["{{ machine.__class__ }}", "{{ machine.name.__class__ }}", "{{ machine.get.__self__ }}"]
)
def test_no_inner_part_of_python_is_reached(source: str) -> None:
    assert "not known" in failure(source)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../etc/passwd", "file:///etc/passwd", "b", ""])
def test_nothing_is_included_that_was_not_read(name: str) -> None:
    assert "root:" not in failure(f"{{% include '{name}' %}}")
    assert "root:" not in failure(f"{{% set n = '{name}' %}}{{% include n %}}")
    assert "root:" not in failure(f"{{% extends '{name}' %}}")
    assert "root:" not in failure(f"{{% import '{name}' as x %}}")


# ---- what they may cost


COSTLY = {
    "endless loop": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "too long a range": "{% for i in range(10000000000) %}{% endfor %}",
    "macro that calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "file that includes itself": "{% include 'a.j2' %}",
    "files that include one another": "{% include 'b.j2' %}",
    "text that doubles": (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x|length }}"
    ),
    "text that doubles when it is caught": (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
        "{% set n.x = y %}{% endfor %}"
    ),
    "text times a number": "{% set n = machine.name|length * 1000000000 %}{{ 'a' * n }}",
    "number with places": "{% set f = '%1000000000' ~ 'd' %}{{ f|format(1) }}",
    "indent": "{% set n = 1000000000 %}{{ ('a\\n' * 1000)|indent(n) }}",
    "long literals in a loop": "{% for i in range(90000) %}" + "x" * 10_000 + "{% endfor %}",
    "replace": "{% set s = 'a' * 10000 %}{% set t = s|replace('a', s) %}{{ t|replace('a', t) }}",
    "batch": "{% set n = 1000000000 %}{{ range(3)|batch(n, 'x')|list|length }}",
}


@pytest.mark.parametrize("source", COSTLY.values(), ids=COSTLY.keys())
def test_costly_template_is_stopped(source: str) -> None:
    made = template(source, b="{% include 'a.j2' %}")
    began = time.thread_time()
    with pytest.raises(TemplateFailure):
        made.render({"machine": dict(MACHINE)})
    assert time.thread_time() - began < 1


def test_panic_costs_one_rendering() -> None:
    class PanicException(BaseException):
        pass

    class Panics:
        def render_template(self, name: str, **context: Any) -> str:
            raise PanicException("index out of\nbounds")

    made = template("fine")
    made._environment = Panics()  # type: ignore[assignment]
    with pytest.raises(TemplateFailure, match=r"^/t/a\.j2: minijinja failed: index out of bounds$"):
        made.render({})
    assert made.render({}) == b"fine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_end_of_the_process_is_no_failure_of_a_template(error: type[BaseException]) -> None:
    class Ends:
        def render_template(self, name: str, **context: Any) -> str:
            raise error

    made = template("fine")
    made._environment = Ends()  # type: ignore[assignment]
    with pytest.raises(error):
        made.render({})


def test_text_is_bounded() -> None:
    assert len(template("x" * MAX_TEXT_BYTES).render({})) == MAX_TEXT_BYTES
    with pytest.raises(TemplateFailure, match="makes more than 1 MiB"):
        template("x" * (MAX_TEXT_BYTES + 1)).render({})
    with pytest.raises(TemplateFailure, match="makes more than 1 MiB"):
        template("ü" * (MAX_TEXT_BYTES // 2 + 1)).render({})


# ---- files


def test_files_are_read_alone_or_with_their_directory(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("a.j2", "sub/b.j2", "notes.txt", ".hidden/c.j2", "named.cfg"):
        (folder / name).write_text(name)
    (tmp_path / "outside.j2").write_text("no")
    (folder / "link.j2").symlink_to("../outside.j2")
    (folder / "inner.j2").symlink_to("a.j2")
    found = read_templates(str(folder), ["named.cfg", "a.j2"])
    assert found == {"named.cfg": "named.cfg", "a.j2": "a.j2", "sub/b.j2": "sub/b.j2", "inner.j2": "a.j2"}
    one = str(folder / "a.j2")
    assert read_templates("", [one]) == {one: "a.j2"}


@pytest.mark.parametrize(
    ("name", "make", "problem"),
    [
        ("absent.j2", lambda path: None, "no such file"),
        ("folder.j2", lambda path: path.mkdir(), "no such file"),
        ("fifo.j2", lambda path: os.mkfifo(path), "no such file"),
        ("link.j2", lambda path: path.symlink_to("/etc/passwd"), "leads out of template_dir"),
        ("latin.j2", lambda path: path.write_bytes(b"a\nb \xe9"), r"latin\.j2:2: not UTF-8"),
        ("large.j2", lambda path: path.write_bytes(b"x" * (MAX_FILE_BYTES + 1)), "larger than 1 MiB"),
    ],
)
def test_file_that_is_no_template_is_refused_by_name(tmp_path: Path, name: str, make: Any, problem: str) -> None:
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=f"^templates: {re.escape(str(tmp_path))}/{re.escape(name)}.*") as caught:
        read_templates(str(tmp_path), [name])
    assert re.search(problem, str(caught.value))


def test_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^template_dir: .*nope: No such file or directory; "):
        read_templates(str(tmp_path / "nope"), [])


def race_templates(folder: Path, count: int) -> Counter[str]:
    """Directories and files change places with links out of the folder while templates are read."""
    (folder / "t/sub").mkdir(parents=True)
    (folder / "out").mkdir()
    for name in ("out/b.j2", "secret.j2"):
        (folder / name).write_text("SECRET")
    for name in ("t/a.j2", "t/sub/b.j2"):
        (folder / name).write_text("inside")
    (folder / "t/bait").symlink_to("../out")
    (folder / "t/lure").symlink_to(folder / "secret.j2")
    outcomes = Counter[str]()
    with swapping((folder / "t/sub", folder / "t/bait"), (folder / "t/a.j2", folder / "t/lure")) as swaps:
        for _ in range(count):
            try:
                found = read_templates(str(folder / "t"), ["a.j2"])
            except ConfigError as error:
                said = str(error)
                outcomes["refused"] += 1
            else:
                said = "".join(found.values())
                outcomes["read"] += 1
            assert "SECRET" not in said
    print(f"{count} times templates were read, {swaps[0]} swaps: {dict(outcomes)}")
    return outcomes


def test_no_race_lets_a_template_in_from_outside(tmp_path: Path) -> None:
    outcomes = race_templates(tmp_path, 600)
    assert outcomes["read"] > 10, outcomes
    assert outcomes["refused"] > 10, outcomes


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_no_race_of_very_many_lets_a_template_in_from_outside(tmp_path: Path) -> None:
    """20 000; with SNOW_OWL_SOAK=full, 100 000."""
    assert race_templates(tmp_path, many(20_000, full=100_000))["read"] > 1000


def test_how_much_is_read_is_bounded(tmp_path: Path) -> None:
    for number in range(17):
        (tmp_path / f"{number}.j2").write_bytes(b"x" * MAX_FILE_BYTES)
    with pytest.raises(ConfigError, match="more than 16 MiB in all"):
        read_templates(str(tmp_path), [])


# ---- before anybody asks


def problems(source: str, *variables: str, **others: str) -> str:
    sources = {"a.j2": source, **{f"{name}.j2": text for name, text in others.items()}}
    try:
        check_sources("/t", sources, FIELDS, {"a.j2": frozenset(variables)})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\n{% if x %}", "templates: /t/a.j2:2: unexpected end of input, expected end of block; mend the template"),
        ("{{ a.b( }}", "templates: /t/a.j2:1: "),
        ("{{ machine.nmae }}", "templates: /t/a.j2: there is no machine.nmae; did you mean machine.name?"),
        ("{{ mac_dshes }}", "templates: /t/a.j2: there is no mac_dshes; did you mean mac_dashes?"),
        ("{{ qqq }}", "templates: /t/a.j2: there is no qqq; there are mac_dashes, machine"),
        ("\n{% include 'c.j2' %}", 'templates: /t/a.j2:2: no template "c.j2"; '),
        ('{%- extends "c.j2" -%}', 'templates: /t/a.j2:1: no template "c.j2"; '),
        (
            "{#\n#}{% raw %}\n{% endraw %}{% include 'c.j2' with context %}",
            'templates: /t/a.j2:3: no template "c.j2"; ',
        ),
        ("{% from 'c.j2' import x %}{{ x }}", 'templates: /t/a.j2:1: no template "c.j2"; '),
        ("{{ machine.a }}{{ machine.b }}", "templates: /t/a.j2: there is no machine.a; "),
    ],
)
def test_mistake_is_found_before_anybody_asks(source: str, expected: str) -> None:
    assert problems(source, "mac_dashes").startswith(expected)


@pytest.mark.parametrize(
    "source",
    [
        "{{ machine.vars.anything.deep }}{{ machine.get('x') }}{{ mac_dashes }}",
        "{% set q = 1 %}{{ q }}{% for i in range(3) %}{{ loop.index }}{{ i }}{% endfor %}",
        "{% include 'b.j2' %}{% include 'c.j2' ignore missing %}{% include 'x/' ~ machine.name %}",
        "{% import 'b.j2' as b %}{{ b.f() }}{% from 'b.j2' import f as g %}{{ g() }}",
        "{% macro f(x) %}{{ x.y }}{{ caller() }}{% endmacro %}{% call f(1) %}{% endcall %}",
        "{# {% include 'c.j2' %} #}{% raw %}{{ nope }}{% include 'c.j2' %}{% endraw %}",
    ],
)
def test_what_may_be_right_is_left_alone(source: str) -> None:
    assert problems(source, "mac_dashes", b="{% macro f() %}{% endmacro %}{{ set_by_who_includes }}") == ""


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems("{{ x }}{{ machine.y }}", b="{% if %}").splitlines()) == 3
