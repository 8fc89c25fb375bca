"""The kernel's neighbours, into the table: what is lost is asked for again, and nobody waits."""

import errno
import threading
from collections.abc import Iterable, Iterator

import pytest
from tests.support.namespaces import Host, one_link
from tests.support.server import wait_for

from snow_owl_tftp.linux.neighbours import ALL_TOLD, AllTold, Neighbour
from snow_owl_tftp.operate.machines import hearing as module
from snow_owl_tftp.operate.machines.hearing import Hearing
from snow_owl_tftp.policy.machines.neighbours import NeighbourTable

MAC, OTHER_MAC = "52:54:00:12:34:56", "52:54:00:65:43:21"
LOST = OSError(errno.ENOBUFS, "No buffer space available")
Said = list[Neighbour | AllTold] | OSError


class FakeSocket:
    """Says what a test has put there."""

    script: list[Said]
    asked: int

    def __init__(self) -> None:
        FakeSocket.asked = 0

    def fileno(self) -> int:
        return 99

    def close(self) -> None:
        pass

    def ask(self) -> bool:
        FakeSocket.asked += 1
        return True

    def has_news(self) -> bool:
        return bool(FakeSocket.script)

    def read(self) -> list[Neighbour | AllTold] | None:
        if not FakeSocket.script:
            return None
        said = FakeSocket.script.pop(0)
        if isinstance(said, OSError):
            raise said
        return said


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[NeighbourTable]:
    monkeypatch.setattr(module, "NeighbourSocket", FakeSocket)
    FakeSocket.script = []
    return NeighbourTable()


def say(*said: Said) -> None:
    FakeSocket.script += said


def known(table: NeighbourTable, addresses: Iterable[str] = ("192.0.2.7", "192.0.2.8")) -> list[str | None]:
    found = [table.sight(address) for address in addresses]
    return [seen.mac if seen is not None else None for seen in found]


def test_all_is_asked_for_at_the_start_and_changes_follow(table: NeighbourTable) -> None:
    say([Neighbour("192.0.2.7", MAC)], [ALL_TOLD])
    hearing = Hearing(table)
    assert FakeSocket.asked == 1
    assert known(table) == [MAC, None]
    say([Neighbour("192.0.2.8", OTHER_MAC), Neighbour("192.0.2.7", None)])
    hearing.on_readable()
    assert known(table) == [None, OTHER_MAC]


def test_change_that_has_just_come_is_known_to_who_asks_for_it(table: NeighbourTable) -> None:
    Hearing(table)
    say([Neighbour("192.0.2.7", MAC)])
    assert known(table) == [MAC, None]


def test_after_a_loss_all_is_asked_for_and_who_is_not_named_is_forgotten(table: NeighbourTable) -> None:
    say([Neighbour("192.0.2.7", MAC), Neighbour("192.0.2.8", MAC)], [ALL_TOLD])
    hearing = Hearing(table)
    say(LOST, [Neighbour("192.0.2.8", OTHER_MAC)], [ALL_TOLD])
    hearing.on_readable()
    assert (FakeSocket.asked, hearing.lost_total) == (2, 1)
    assert known(table) == [None, OTHER_MAC]


def test_dump_that_was_disturbed_makes_nobody_forgotten(table: NeighbourTable) -> None:
    say([Neighbour("192.0.2.7", MAC)], [ALL_TOLD])
    hearing = Hearing(table)
    say([Neighbour("192.0.2.8", OTHER_MAC)], [AllTold(is_consistent=False)])
    hearing.refresh()
    assert FakeSocket.asked == 2
    assert known(table) == [MAC, OTHER_MAC]


def test_who_meets_somebody_reading_goes_on_without(table: NeighbourTable) -> None:
    hearing = Hearing(table)
    say([Neighbour("192.0.2.7", MAC)])
    with hearing._is_reading:
        assert known(table) == [None, None]
    assert known(table) == [MAC, None]


def test_one_turn_reads_no_more_than_its_share(table: NeighbourTable) -> None:
    hearing = Hearing(table)
    say(*([Neighbour("192.0.2.9", MAC)] for _ in range(100)))
    assert known(table, ["192.0.2.7"]) == [None]
    assert len(FakeSocket.script) == 96
    hearing.on_readable()
    assert len(FakeSocket.script) == 64


def test_refusal_at_the_start_is_the_callers_and_later_costs_freshness_only(table: NeighbourTable) -> None:
    forbidden = PermissionError(errno.EPERM, "Operation not permitted")
    say(forbidden)
    with pytest.raises(PermissionError):
        Hearing(table)
    say([Neighbour("192.0.2.7", MAC)], [ALL_TOLD])
    hearing = Hearing(table)
    say(forbidden)
    hearing.refresh()
    assert known(table) == [MAC, None]


def test_table_knows_on_when_nobody_hears_any_more(table: NeighbourTable) -> None:
    say([Neighbour("192.0.2.7", MAC)], [ALL_TOLD])
    Hearing(table).close()
    say([Neighbour("192.0.2.8", MAC)])
    assert known(table) == [MAC, None]


def test_storm_of_changes_ends_with_what_the_kernel_has() -> None:
    table = NeighbourTable()
    with one_link() as (host, _):
        hearing = host.run(Hearing, table)
        lines = "".join(
            f"neigh replace 10.9.0.{last} lladdr 52:54:00:00:{turn:02x}:{last:02x} dev r0 nud stale\n"
            for turn in range(20)
            for last in range(2, 200)
        )
        batch(host, lines)
        wait_for(lambda: hearing.on_readable() or len(table) == 198, "all of them")
        wait_for(lambda: hearing.on_readable() or known(table, ["10.9.0.2"]) == ["52:54:00:00:13:02"], "the last")
        host.ip("neigh", "flush", "dev", "r0")
        wait_for(lambda: hearing.on_readable() or len(table) == 0, "nobody")
        hearing.close()


def batch(host: Host, lines: str) -> None:
    import subprocess

    done = host.run(
        lambda: subprocess.run(["ip", "-batch", "-"], input=lines, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, done.stderr


def test_two_threads_may_look_at_the_same_time() -> None:
    table = NeighbourTable()
    with one_link() as (host, _):
        hearing = host.run(Hearing, table)
        done = threading.Event()
        failed: list[BaseException] = []

        def look() -> None:
            try:
                while not done.is_set():
                    table.sight("10.9.0.250")
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        batch(host, "".join(f"neigh replace 10.9.0.{n} lladdr {MAC} dev r0 nud stale\n" for n in range(2, 100)))
        wait_for(lambda: len(table) == 98, "all of them")
        hearing.close()
        done.set()
        for thread in threads:
            thread.join()
        assert not failed
