"""`snow-owl-tftp explain`: what the server would answer to one request, step by step.

May know: flags and how to print. Must not decide anything.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from snow_owl_tftp.operate.explain import Explanation

__all__ = ["command"]

_NOT_SERVED = 1
_HANDLER_DECIDES = 3


@click.command("explain")
@click.argument("name")
@click.option("--client", required=True, metavar="ADDR", help="Who asks.")
@click.option("--mac", metavar="MAC", help="Its MAC, taken for proved.")
@click.option("--after", metavar="PATH", default="", help="The file that it has received last, for second stages.")
@click.option("--listen", metavar="ADDR:PORT", help="Where it asks; default: the first bind_addr.")
@click.option("--write", is_flag=True, help="It wants to upload.")
@click.option("--option", "options", metavar="K=V", multiple=True, help="An option that it sends; may be given again.")
@click.option("--config", "config_path", metavar="FILE", type=click.Path(path_type=Path), help="Settings, in TOML.")
@click.option("--root", metavar="DIR", help="Instead of root_dir of the file.")
@click.option("--show", "shows", is_flag=True, help="Also print what a template makes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    name: str,
    client: str,
    mac: str | None,
    after: str,
    listen: str | None,
    write: bool,
    options: tuple[str, ...],
    config_path: Path | None,
    root: str | None,
    shows: bool,
    as_json: bool,
) -> int:
    """Say what NAME would be answered, and why: machine, rewriting, names, rules, roots, template, file, options.

    Asks the code that a server runs, with the files as they are now and as this user may read them; it changes nothing.
    The exit status is 0 where it would be served, 1 where not, 3 where a handler says, since handlers are not called.
    """
    from snow_owl_tftp.cli.explain_lines import lines_of, tree_of
    from snow_owl_tftp.config.load import load
    from snow_owl_tftp.operate.explain import Question, explain

    settings = load(config_path, environ=os.environ, flags={"root_dir": root})
    asked = Question(
        client=_address(client),
        listen=_listening(listen) if listen else settings.bind_addresses[0],
        name=name,
        is_write=write,
        options=tuple(_option(text) for text in options),
        mac=mac,
        after=after,
        shows=shows,
    )
    told = explain(settings, asked)
    if as_json:
        click.echo(json.dumps(tree_of(told)))
    else:
        for label, text in lines_of(asked, told):
            click.echo(f"{label:<9} {text}".rstrip())
    return _status_of(told)


def _status_of(told: "Explanation") -> int:
    if told.is_served is None:
        return _HANDLER_DECIDES
    return 0 if told.is_served else _NOT_SERVED


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise click.UsageError(f'--client: expected an address such as 192.0.2.7, got "{text}"') from None


def _listening(text: str) -> tuple[str, int]:
    from snow_owl_tftp.config.binds import parse_bind
    from snow_owl_tftp.errors import ConfigError

    try:
        return parse_bind(text)
    except ConfigError as error:
        raise click.UsageError(f"--listen: {error}") from None


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f'--option: expected "NAME=VALUE" such as blksize=1428, got "{text}"')
    return name, value
