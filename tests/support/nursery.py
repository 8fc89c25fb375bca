"""Makes servers by fork(): `python -m tests.support.nursery`, with tests/support/sweep.c preloaded.

A line of JSON in, one out. {"arguments": [...], "folder": PATH} begins `snow-owl-tftp serve` in a child and answers its
process id; {"wait": ID, "within_s": S} answers its wait status, or null when it lives yet. The child writes standard
output and error to files of the folder and, once the server has ended, what of the engine is alive (live_objects).

May know: the command line and what it imports. Must not: serve by itself.
Invariant: a child has every module that a server needs, so what it opens and asks memory for is its own.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import tomllib
import traceback
from pathlib import Path
from typing import Any

import snow_owl_tftp.server.writes
from snow_owl_tftp import cli
from snow_owl_tftp.cli import serve
from snow_owl_tftp.config.schema import LoggingSettings
from snow_owl_tftp.observe.log import LogFile, make_logger
from snow_owl_tftp.operate import run
from snow_owl_tftp.server import loop as core

LIVE = "live.json"
ENGINE_MODULES = 8


def remember_engine(engines: list[Any]) -> None:
    made = core.make_engine

    def make_engine(*arguments: Any) -> Any:
        engines.append(made(*arguments))
        return engines[-1]

    core.make_engine = make_engine


def arm(wanted: dict[str, int]) -> None:
    control = (ctypes.c_int * 5).from_address(ctypes.c_void_p.in_dll(ctypes.CDLL(None), "sweep_control").value or 0)
    for place, name in enumerate(("call", "skip", "error", "times")):
        control[place] = wanted[name]


def switch(*, on: bool) -> None:
    ctypes.c_int.in_dll(ctypes.CDLL(None), "sweep_is_on").value = on


def be_server(arguments: list[str], folder: Path, fault: dict[str, int] | None) -> int:
    for number, name in ((1, "stdout"), (2, "stderr")):
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fd, number)
        os.close(fd)
    engines: list[Any] = []
    remember_engine(engines)
    if fault:
        arm(fault)
    switch(on=True)
    status = cli.main(["serve", *arguments])
    switch(on=False)
    (folder / LIVE).write_text(json.dumps([engine.live_objects() for engine in engines]))
    return status


def begin(request: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        status = be_server(request["arguments"], Path(request["folder"]), request.get("fault"))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, within_s: float) -> int | None:
    fd = os.pidfd_open(child)
    try:
        if not select.select([fd], [], [], within_s)[0]:
            return None
    finally:
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def warm_up() -> None:
    """Import what is imported at the first use."""
    assert all((serve, run, snow_owl_tftp.server.writes, tomllib))
    log = make_logger(LoggingSettings(level="error"), LogFile())
    log.debug("warm")
    with contextlib.suppress(OSError):
        os.scandir("/nowhere")
    assert ctypes.CDLL(None).sweep_learn_engine() == ENGINE_MODULES


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()
    print("null", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = wait(request["wait"], request["within_s"]) if "wait" in request else begin(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
