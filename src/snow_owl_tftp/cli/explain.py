"""`snow-owl-tftp explain`: what the server would answer to one request, step by step.

May know: flags and how to print. Must not decide anything.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from snow_owl_tftp.operate.explain import Asked, Explanation

__all__ = ["command"]

_NOT_SERVED = 1


@click.command("explain")
@click.argument("name")
@click.option("--client", required=True, metavar="ADDR", help="Who asks.")
@click.option("--mac", metavar="MAC", help="Its MAC, taken for proved.")
@click.option("--listen", metavar="ADDR:PORT", help="Where it asks; default: the first bind_addr.")
@click.option("--write", is_flag=True, help="It wants to upload.")
@click.option("--option", "options", metavar="K=V", multiple=True, help="An option that it sends; may be given again.")
@click.option("--config", "config_path", metavar="FILE", type=click.Path(path_type=Path), help="Settings, in TOML.")
@click.option("--root", metavar="DIR", help="Instead of root_dir of the file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    name: str,
    client: str,
    mac: str | None,
    listen: str | None,
    write: bool,
    options: tuple[str, ...],
    config_path: Path | None,
    root: str | None,
    as_json: bool,
) -> int:
    """Say what NAME would be answered, and by which rule, root and file.

    Asks the code that a server runs, with the files as they are now and as this user may read them; it changes nothing.
    The exit status is 0 where it would be served, 1 where not.
    """
    from snow_owl_tftp.config.binds import parse_bind
    from snow_owl_tftp.config.load import load, override
    from snow_owl_tftp.config.schema import Settings
    from snow_owl_tftp.operate.explain import Asked, explain

    settings = override(load(config_path) if config_path else Settings(), {"root_dir": root})
    asked = Asked(
        client=_address(client),
        listen=parse_bind(listen) if listen else settings.bind_addresses[0],
        name=name,
        is_write=write,
        options=tuple(_option(text) for text in options),
        mac=mac,
    )
    told = explain(settings, asked)
    if as_json:
        click.echo(json.dumps(_tree(told)))
    else:
        for label, text in _lines(asked, told):
            click.echo(f"{label:<9} {text}")
    return 0 if told.is_served else _NOT_SERVED


def _address(text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise click.UsageError(f'--client: expected an address such as 192.0.2.7, got "{text}"') from None


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f'--option: expected "NAME=VALUE" such as blksize=1428, got "{text}"')
    return name, value


def _tree(told: "Explanation") -> dict[str, Any]:
    import msgspec

    tree: dict[str, Any] = msgspec.to_builtins(told)
    return tree


def _lines(asked: "Asked", told: "Explanation") -> list[tuple[str, str]]:
    what = "write" if asked.is_write else "read"
    host, port = asked.listen
    lines = [("client", f"{asked.client} asks {host}, port {port}, to {what} {_shown(asked.name)}")]
    if told.machine is not None:
        known = [told.machine.name, told.machine.mac, told.machine.serial, told.machine.group]
        lines.append(("machine", f"{', '.join(text for text in known if text)} (by {told.machine.known_by})"))
    lines += [("name", _shown(name)) for name in told.names]
    lines += [("rule", f"{one.rule} does not fit: {one.unmet}") for one in told.passed]
    lines.append(("rule", f"{told.rule} decides" if told.rule else "none decides"))
    lines += [("root", f"{_shown(one.root)}: {_shown(one.result)}") for one in told.roots]
    if told.is_served:
        size = "" if told.size_bytes is None else f" ({told.size_bytes} bytes)"
        lines.append(("file", _shown(told.file) + size))
        granted = " ".join(f"{name}={value}" for name, value in told.options.items())
        lines.append(("options", _shown(granted) if granted else "none"))
    lines.append(("answer", "served" if told.is_served else told.answer))
    if told.why:
        lines.append(("why", _shown(told.why)))
    return lines


def _shown(text: str) -> str:
    """Without what could confuse a terminal."""
    return "".join(
        one if one.isprintable() and not "\ud800" <= one <= "\udfff" else one.encode("unicode_escape").decode()
        for one in text
    )
