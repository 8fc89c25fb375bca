"""Flags that every transfer has, and what they say.

May know: flags, standard streams. Must not know: transfers.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = ["client_flags", "settings_of", "stream"]

_STREAMS: Final = {"stdin": "standard input", "stdout": "standard output", "stderr": "standard error"}

_Command = TypeVar("_Command", bound=Callable[..., Any])


def client_flags(command: _Command) -> _Command:
    """Add the flags that every transfer has."""
    flags = [
        click.option("--blksize", type=int, metavar="BYTES", help="Ask for blocks of 8..65464; default: the path MTU."),
        click.option("--windowsize", type=int, metavar="BLOCKS", help="Ask for windows of 1..65535; default: 64."),
        click.option("--no-options", is_flag=True, help="Ask for no options, as in RFC 1350: blocks of 512 bytes."),
        click.option("--timeout", type=float, metavar="S", help="Repeat after S seconds; default: as measured."),
        click.option("--retries", type=int, metavar="N", help="Repeat N times before giving up; default: 5."),
        click.option("--mode", type=click.Choice(["octet", "netascii"]), help="Default: octet; the URL's mode wins."),
        click.option("--port-range", metavar="A-B", help="Local UDP ports, for firewalls."),
        click.option("--bind", metavar="ADDRESS", help="Local address to send from."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object a transfer."),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def settings_of(flags: dict[str, Any]) -> dict[str, Any]:
    """The client's settings that the flags name.

    Raises:
        click.BadParameter: The port range is none.
    """
    settings = {name: value for name, value in flags.items() if value is not None}
    if "port_range" in settings:
        low, _, high = settings["port_range"].partition("-")
        if not (low.isdigit() and (high or low).isdigit()):
            raise click.BadParameter("expected A-B", param_hint="--port-range")
        settings["port_range"] = (int(low), int(high or low))
    return settings


def stream(name: str) -> Any:
    """`sys.stdin`, `sys.stdout` or `sys.stderr`.

    Raises:
        click.UsageError: The shell has closed it (`>&-`).
    """
    if (file := getattr(sys, name)) is None:
        raise click.UsageError(f"{_STREAMS[name]} is closed")
    return file
