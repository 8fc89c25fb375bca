"""Who asks for a second stage before it is known that the first has ended, as happens with several workers."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.client import Client
from tests.support.server import serve_in_thread

from snow_owl_tftp.errors import OptionalMissingError, RefusedError
from snow_owl_tftp.server import early
from snow_owl_tftp.server.early import EarlyAskers
from snow_owl_tftp.server.verdict import Refused, Verdict

MISSING = Refused(b"", RefusedError(1, "File not found"), None)
OPTIONAL = Refused(b"", OptionalMissingError(1, "File not found"), None)
DENIED = Refused(b"", RefusedError(2, "Access violation"), None)


class Found:
    """Stands for what is accepted."""

    def __init__(self) -> None:
        self.discarded_total = 0

    def discard(self) -> None:
        self.discarded_total += 1


def found() -> Any:
    return Found()


async def later(verdict: Verdict) -> Verdict:
    await asyncio.sleep(0)
    return verdict


@pytest.mark.parametrize("verdict", [DENIED, cast(Verdict, Found())])
async def test_what_is_no_miss_is_answered_at_once(verdict: Verdict) -> None:
    askers = EarlyAskers()
    assert askers.answer(verdict, lambda: True, found) is verdict
    answer = askers.answer(later(verdict), lambda: True, found)
    assert await cast(Any, answer) is verdict
    assert askers.waiting_total == 0


@pytest.mark.parametrize("missing", [MISSING, OPTIONAL])
async def test_miss_is_looked_at_again_where_a_transfer_has_ended_meanwhile(missing: Refused) -> None:
    askers, second = EarlyAskers(), found()
    for first in (missing, later(missing)):
        assert await cast(Any, askers.answer(first, lambda: True, lambda: second)) is second
    assert await cast(Any, askers.answer(missing, lambda: True, lambda: later(second))) is second
    assert await cast(Any, askers.answer(missing, lambda: False, found)) is missing
    assert askers.waiting_total == 0


async def test_flood_of_misses_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "_MAX_WAITING", 3)
    askers = EarlyAskers()
    waiting = [asyncio.ensure_future(cast(Any, askers.answer(MISSING, lambda: False, found))) for _ in range(3)]
    await asyncio.sleep(0)
    assert askers.answer(MISSING, lambda: False, found) is MISSING
    assert await asyncio.gather(*waiting) == [MISSING] * 3
    assert askers.waiting_total == 0


async def test_what_was_found_for_nobody_is_discarded() -> None:
    """The server is stopped in the moment in which a thread has found the file."""
    askers, verdict = EarlyAskers(), found()
    looking: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(cast(Any, askers.answer(looking, lambda: True, found)))
    await asyncio.sleep(0)
    looking.set_result(verdict)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert verdict.discarded_total == 1
    assert askers.waiting_total == 0


def test_second_stage_is_found_whichever_worker_is_asked(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/shimx64.efi").write_bytes(b"shim" * 1000)
    (root / "a/b/grubx64.efi").write_bytes(b"grub")
    with serve_in_thread(root, {"names.siblings": ["*.efi"], "workers": 4, "logging.level": "error"}) as server:
        for number in range(1, 201):
            source = f"127.9.0.{number}"
            with Client(server.address, source=source) as client:
                client.get("a/b/shimx64.efi")
            with Client(server.address, source=source) as client:
                assert client.get("grubx64.efi").payload == b"grub"
