"""What a wheel holds for type checkers: py.typed, the stubs, and types that a strict user can work with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

USER_PROGRAM = """
import asyncio
from pathlib import Path

from snow_owl_tftp import AsyncClient, Client, ReadRequest, Refuse, Response, Server, TransferError, get

def fetch(url: str) -> int:
    result = get(url, Path("x"), blksize=1428, progress=lambda done, size: print(done, size))
    with Client("10.0.0.1", windowsize=32) as client:
        size: int | None = client.size("x")
        return len(client.get("x")) + result.retransmits + (size or 0)

async def answer(request: ReadRequest) -> Response | Refuse:
    return Response(request.path.encode()) if request.options else Refuse()

async def main() -> None:
    async with Server(read=answer) as server, AsyncClient() as client:
        try:
            data: bytes = await client.get(server.url("x"))
            print(data, await client.size(server.url("x")))
        except TransferError as error:
            print(error.text)
"""

WRONG_PROGRAM = """
from snow_owl_tftp import Client, put

lines: list[str] = Client("10.0.0.1").get("x")
put("tftp://10.0.0.1/x", b"", blksise=512)
"""


@pytest.fixture(scope="module")
def wheel_tree(tmp_path_factory) -> Path:
    """The Python part of a wheel, as setuptools lays it out."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "SNOW_OWL_BUILD": "none"}, check=True, timeout=50)
    return folder


def mypy(tree: Path, program: str) -> "subprocess.CompletedProcess[str]":
    pytest.importorskip("mypy", reason="MISSING: mypy (the extra `lint` brings it)")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tree}/cache", "-c", program]
    return subprocess.run(
        command, cwd=tree, env={**os.environ, "MYPYPATH": str(tree)}, capture_output=True, text=True, timeout=55
    )


def test_wheel_is_typed(wheel_tree):
    package = wheel_tree / "snow_owl_tftp"
    assert (package / "py.typed").exists()
    assert (package / "library/pytest_plugin.py").exists()
    assert (package / "_engine/engine/__init__.pyi").exists()
    assert not list(package.rglob("*.pyx"))


@pytest.mark.timeout(120)
def test_strict_type_checker_accepts_a_users_program_and_no_mistake(wheel_tree):
    done = mypy(wheel_tree, USER_PROGRAM)
    assert done.returncode == 0, done.stdout
    done = mypy(wheel_tree, WRONG_PROGRAM)
    assert "Incompatible types in assignment" in done.stdout
    assert 'Unexpected keyword argument "blksise"' in done.stdout
