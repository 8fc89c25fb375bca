"""The command line: one file per command, each imported only when it is called.

    snow-owl-tftp serve [ROOT] [--bind ADDR:PORT] ...

May know: flags and how to say what went wrong. Must not hold anything that an embedding program
would need: that belongs to the layers below.

Invariants:
- Each operator error is one line on standard error, without a traceback, and the exit status is 2.
  A traceback means a bug of ours.
- Importing this package imports no command and no engine, so that `--help` is quick.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from snow_owl_tftp import __version__
from snow_owl_tftp.errors import ConfigError, EngineError

__all__ = ["main"]

_PROGRAM: Final = "snow-owl-tftp"
_USAGE_ERROR: Final = 2
"""As for a flag that does not exist."""

_COMMANDS: Final = {
    "bench": "snow_owl_tftp.cli.bench",
    "config": "snow_owl_tftp.cli.config",
    "explain": "snow_owl_tftp.cli.explain",
    "get": "snow_owl_tftp.cli.get",
    "put": "snow_owl_tftp.cli.put",
    "rewrite": "snow_owl_tftp.cli.rewrite",
    "serve": "snow_owl_tftp.cli.serve",
    "trace": "snow_owl_tftp.cli.trace",
}
"""Name to module; the module's function `command` is the click command."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(module).command
        return command


@click.group(cls=_LazyGroup, name=_PROGRAM)
@click.version_option(__version__, prog_name=_PROGRAM)
def _program() -> None:
    """A TFTP server that streams in native code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; None: those of the process.

    Returns:
        The exit status.
    """
    if sys.stderr is None:  # closed by the shell: print would take standard output instead
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    try:
        status = _program.main(arguments, prog_name=_PROGRAM, standalone_mode=False)
    except click.exceptions.Abort:  # Ctrl-C before the server took the signals over
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return _USAGE_ERROR
    except click.ClickException as error:
        return _complain(error.format_message())
    except ConfigError as error:
        return _complain(str(error))
    except EngineError as error:
        return _complain(error.strerror or str(error))
    return status if isinstance(status, int) else 0


def _complain(problems: str) -> int:
    for problem in problems.splitlines():
        print(f"{_PROGRAM}: {problem}", file=sys.stderr)
    return _USAGE_ERROR
