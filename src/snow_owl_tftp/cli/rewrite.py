"""`snow-owl-tftp rewrite test`: what rules make of names, without a server.

    FILE ─► rules ─► each NAME ─► "NAME -> what is looked for", or "NAME -> ERROR: text"

May know: flags, settings and the rules. Must not look for any file that a name leads to.

Invariant: the rules are those of the server, from the same code. Exit status 1: at least one name is denied.
"""

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

__all__ = ["command"]


@click.group("rewrite")
def command() -> None:
    """Try out rules that rewrite names."""


def _address(_ctx: click.Context, _parameter: click.Parameter, given: str) -> str:
    try:
        return str(ip_address(given))
    except ValueError:
        raise click.BadParameter(f'"{given}" is no address; write it like 192.0.2.34 or 2001:db8::1') from None


@command.command("test")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--client", default="192.0.2.34", show_default=True, callback=_address, help="The address that asks.")
@click.option("--write", "is_write", is_flag=True, help="As for an upload.")
@click.option("--steps", "shows_steps", is_flag=True, help="Also print what each rule did.")
def _test(file: Path, names: tuple[str, ...], client: str, is_write: bool, shows_steps: bool) -> int:
    """Print what becomes of each NAME.

    FILE is a map file of tftpd-hpa, or a configuration whose name ends in ".toml". Where a rule ends with a name
    only if that can be opened ("E"), all names are printed in the order in which they are looked for.
    """
    rewrites = _rewrites_of(file)
    is_denied = False
    for name in names:
        steps: list[tuple[str, str]] = []
        rewritten = rewrites.apply(name, client, is_write=is_write, note=lambda *step, into=steps: into.append(step))
        found = [_shown(candidate) for candidate in rewritten.names]
        if rewritten.denial is not None:
            is_denied = True
            found.append(f"ERROR: {rewritten.denial} ({rewritten.why})")
        print(f"{_shown(name)} -> {', else '.join(found)}")
        if shows_steps:
            sys.stdout.writelines(f"  {where}: {_shown(deed)}\n" for where, deed in steps)
    return 1 if is_denied else 0


def _rewrites_of(file: Path) -> Any:
    from snow_owl_tftp.config.load import load
    from snow_owl_tftp.errors import ConfigError
    from snow_owl_tftp.policy.rewrite.rewrites import Rewrites

    if file.suffix != ".toml":
        return Rewrites.of_map(file)
    rewrites = Rewrites.compile(load(file))
    if rewrites is None:
        raise ConfigError(f"{file}: it rewrites nothing; add [[rewrite]] or rewrite_file")
    return rewrites


def _shown(name: str) -> str:
    r"""Write every byte that is no printable text as \xNN: a name must not move the cursor."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
