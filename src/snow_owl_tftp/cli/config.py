"""`snow-owl-tftp config`: write, check, show and compare configurations.

May know: how to print. Must not know any key, or decide what is right: `config` and `operate` do.
"""

import json
import os
from pathlib import Path

import click

__all__ = ["command"]

_DIFFERENT = 1
_FILE = click.Path(path_type=Path)


@click.group("config")
def command() -> None:
    """Write, check, show and compare configuration files."""


@command.command("init")
@click.argument("file", required=False, type=_FILE)
def _init(file: Path | None) -> None:
    """Write a file to begin with: every key, what it means, its range and default, all as remarks.

    Without FILE to standard output. A file that exists is left as it is.
    """
    from snow_owl_tftp.config.schema import Settings
    from snow_owl_tftp.config.written import commented
    from snow_owl_tftp.errors import ConfigError

    text = "\n".join([*_BEGINNING, *commented(Settings)]) + "\n"
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name another file, or remove this one") from error
    click.echo(f"{file} written; take the # away from what you want to change")


@command.command("check")
@click.argument("file", required=False, type=_FILE)
def _check(file: Path | None) -> None:
    """Check FILE, its drop-ins (conf.d/*.toml beside it) and the environment as `serve` would, up to the first request.

    Files and directories are looked at as this user; nothing is bound, written or imported.

    Each problem is a line on standard error with file, line, key and remedy; the exit status is then 2.
    What is allowed and has no effect is a line on standard output.
    """
    from snow_owl_tftp.config.check import without_effect
    from snow_owl_tftp.config.layers import located
    from snow_owl_tftp.config.load import gather, placed, settle
    from snow_owl_tftp.errors import ConfigError
    from snow_owl_tftp.operate.rehearsal import rehearse

    dropped: list[str] = []
    layers = gather(file, dropped.extend, environ=os.environ)
    settings = settle(layers)
    try:
        rehearse(settings)
    except ConfigError as error:
        raise placed(error, layers) from error
    for key in dropped:
        click.echo(f"no effect: {key}")
    for key, remedy in without_effect(settings).items():
        click.echo(f"no effect: {located(layers, key)}: {key}; {remedy}")
    click.echo("no problems found")


@command.command("show")
@click.argument("file", required=False, type=_FILE)
@click.option("--origin", is_flag=True, help="Behind each key, where its value comes from.")
def _show(file: Path | None, origin: bool) -> None:
    """Print what would be in force with FILE, its drop-ins and the environment, as TOML."""
    from snow_owl_tftp.config.layers import located, sets
    from snow_owl_tftp.config.load import gather, settle
    from snow_owl_tftp.config.written import shown

    layers = gather(file, environ=os.environ)
    settings = settle(layers)

    def remark(path: str) -> str:
        return located(layers, path) if sets(layers, path) else "default"

    for line in shown(settings, remark if origin else lambda path: ""):
        click.echo(line)


@command.command("schema")
@click.option("--markdown", is_flag=True, help="Tables of all keys for people, instead.")
def _schema(markdown: bool) -> None:
    """Print the JSON Schema of a configuration, for editors that complete and check TOML."""
    from snow_owl_tftp.config.schema import Settings
    from snow_owl_tftp.config.schema_json import json_schema
    from snow_owl_tftp.config.written import reference

    if markdown:
        click.echo("\n".join([*_REFERENCE, *reference(Settings)]))
        return
    click.echo(json.dumps(json_schema(), indent=2))


@command.command("diff")
@click.argument("before", type=_FILE)
@click.argument("after", required=False, type=_FILE)
def _diff(before: Path, after: Path | None) -> int:
    """Print which keys differ between two files, or between the defaults and one.

    The exit status is 1 where something differs.
    """
    from snow_owl_tftp.config.compare import differences
    from snow_owl_tftp.config.load import load
    from snow_owl_tftp.config.schema import Settings
    from snow_owl_tftp.config.toml_text import text_of

    old, new = (Settings(), load(before)) if after is None else (load(before), load(after))
    different = list(differences(old, new))
    for one in different:
        click.echo(f"{one.path}: {text_of(one.before)} -> {text_of(one.after)}")
    return _DIFFERENT if different else 0


@command.command("import")
@click.argument("file", type=_FILE)
@click.option("--from", "form", metavar="FORM", help="Which file it is; default: find out. pcre: one of atftpd's.")
def _import(file: Path, form: str | None) -> None:
    """Print the configuration of another TFTP server as ours, with where each key comes from.

    FILE is /etc/default/tftpd-hpa or atftpd, a unit with ExecStart, a service of xinetd, or what dnsmasq reads. What
    stays behind is told at the beginning and on standard error: why, and what to do instead. A PCRE file of atftpd
    becomes a map file, for rewrite_file.
    """
    from snow_owl_tftp.config.importing.forms import FORMS, carry, read
    from snow_owl_tftp.config.importing.pcre import map_lines
    from snow_owl_tftp.errors import ConfigError

    if form == "pcre":
        click.echo("\n".join(map_lines(read(file), str(file))))
        return
    if form is not None and form not in FORMS:
        raise ConfigError(f'--from: expected one of {", ".join(FORMS)}, pcre, got "{form}"')
    carried = carry(file, form)
    for line in carried.lines():
        click.echo(line)
    for remark in carried.remarks:
        click.echo(f"not carried over: {remark.place}: {remark.text}", err=True)


_REFERENCE = (
    "# Settings",
    "",
    "Every key of the configuration, as `snow-owl-tftp config schema --markdown` prints them.",
    "[configuration.md](configuration.md) says why you would change them.",
)
_BEGINNING = (
    "# Configuration of snow-owl-tftp. Every key is here with its default; take the # away from what you change.",
    "# `snow-owl-tftp config check FILE` finds every mistake.",
)
