"""`snow-owl-tftp serve`: flags laid over a configuration file, then the server.

May know: flags and settings. Must not check what settings check: ranges are written once, in `config`.
"""

import os
import select
from pathlib import Path

import click

__all__ = ["command"]


@click.command("serve")
@click.argument("root", required=False)
@click.option(
    "--bind", "binds", metavar="ADDR:PORT", multiple=True, help="Where to listen, :PORT everywhere; may be given again."
)
@click.option("--workers", metavar="N|auto", help="Native threads that answer; default: 1; auto: one per usable core.")
@click.option("--single-port", is_flag=True, default=None, help="Serve everything from the listening port.")
@click.option("--tid-ports", metavar="A-B", help="UDP ports of transfers, for firewalls.")
@click.option("--config", "config_path", metavar="FILE", type=click.Path(path_type=Path), help="Settings, in TOML.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="text or json.")
def command(
    root: str | None,
    binds: tuple[str, ...],
    workers: str | None,
    single_port: bool | None,
    tid_ports: str | None,
    config_path: Path | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Serve the files below ROOT until SIGTERM or SIGINT.

    Flags override environment variables (SNOW_OWL_TFTP__WORKERS=2), and these the configuration file, which SIGHUP
    rereads. Once requests are answered, a line "listening on
    ADDR:PORT" for each bound address goes to standard output; port 0 lets the kernel choose.
    """
    from snow_owl_tftp.config.layers import Layer
    from snow_owl_tftp.config.load import gather, placed, settle
    from snow_owl_tftp.config.schema import Settings
    from snow_owl_tftp.errors import ConfigError
    from snow_owl_tftp.operate.run import serve

    flags = {
        "root_dir": root,
        "bind_addr": binds or None,
        "workers": _number_or_text(workers),
        "single_port": single_port,
        "tid_ports": tid_ports,
        "logging.level": log_level,
        "logging.format": log_format,
    }

    dropped: list[str] = []  # of the file as it was read last

    def note_dropped(keys: list[str]) -> None:
        dropped[:] = keys

    layers: list[Layer] = []  # likewise

    def read() -> Settings:
        layers[:] = gather(config_path, note_dropped, environ=os.environ, flags=flags)
        return settle(layers)

    try:
        serve(read(), _announce, read if config_path else None, dropped)
    except ConfigError as error:
        raise placed(error, layers) from error


def _number_or_text(given: str | None) -> int | str | None:
    """As TOML would have it; settings know which numbers and which texts."""
    try:
        return given if given is None else int(given)
    except ValueError:
        return given


def _announce(address: str) -> bool:
    # Not through sys.stdout: a reader that closes the pipe must not end the server, and one that reads nothing must
    # not hold it up.
    line = f"listening on {address}\n".encode()
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    try:
        return bool(poll.poll(0)) and os.write(1, line) == len(line)
    except OSError:
        return False
