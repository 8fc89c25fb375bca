"""The life of a transfer against its table, NEXT in protocol/transfer.py: each move is seen, and no other is made.

A debug build aborts at a move that is not in the table, in whatever test; and it notes which moves it has made, so that
here scenarios of other tests show each of them.
"""

import ctypes
import inspect
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.engine import test_asking, test_stalls, test_uploads
from tests.support.client import Client

from snow_owl_tftp._engine.worker import loop
from snow_owl_tftp.protocol.packets import Error
from snow_owl_tftp.protocol.transfer import NEXT, State

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE = REPOSITORY / "src/snow_owl_tftp/_engine"
PATIENCE_S = 5.0
ALL = {(before, after) for before, states in NEXT.items() for after in states}


# --- the table is the same everywhere --------------------------------------------------------------------


def test_the_table_of_the_engine_is_the_same():
    probe = pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
    assert {(before, after) for before in State for after in State if probe.may_follow(before, after)} == ALL


def test_the_states_of_the_engine_have_these_names_and_numbers():
    declared = re.findall(r"^    T_(\w+) = (\d+)", (ENGINE / "base/transfer.pxd").read_text(), re.MULTILINE)
    assert [(name, int(number)) for name, number in declared] == [(state.name, state.value) for state in State]


def test_the_table_of_the_design_is_the_same():
    rows = re.findall(r"^\| `([A-Z]+)` \|[^|]*\| (.*) \|$", (REPOSITORY / "docs/design.md").read_text(), re.MULTILINE)
    assert {(State[row], State[name]) for row, names in rows for name in re.findall(r"`(\w+)`", names)} == ALL


def test_every_state_but_the_first_is_reached_and_left():
    assert set(NEXT) == set(State)
    assert {after for _, after in ALL} == set(State)


def test_a_state_is_changed_in_one_place_only():
    """What the table says is looked at there."""
    set_in = [
        path.name
        for path in sorted(ENGINE.rglob("*.p[yx]*"))
        if path.suffix in (".pxd", ".pyx")
        for _ in re.findall(r"\b(?:t|other|transfer)\.state = ", path.read_text())
    ]
    assert set_in == ["transfer.pxd"]


# --- what is seen ----------------------------------------------------------------------------------------


@pytest.fixture
def seen() -> Iterator[Callable[[], set[tuple[State, State]]]]:
    """Returns the moves since the test began."""
    library = ctypes.CDLL(loop.__file__)
    if not hasattr(library, "transfer_moves"):
        pytest.skip("a release build does not note its moves: debug and sanitize run it")
    noted = (ctypes.c_ubyte * 10 * 10).in_dll(library, "transfer_moves")
    ctypes.memset(noted, 0, ctypes.sizeof(noted))
    return lambda: {(before, after) for before in State for after in State if noted[before][after]}


@pytest.fixture
def cold_disk() -> Iterator[threading.Event]:
    test_stalls.ColdDisk.opened = threading.Event()
    yield test_stalls.ColdDisk.opened
    test_stalls.ColdDisk.opened.set()


@pytest.fixture
def asker(serve, tmp_path):
    return test_asking.make_asker(serve, tmp_path, test_asking.QUICK)


def refused(serve):
    with Client(serve().address) as client:
        client.request("missing")
        assert isinstance(client.receive_packet()[0], Error)


def fetched(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(2000))
    with Client(serve().address) as client:
        assert client.get("file").payload == bytes(2000)


def asked_with(*options):
    def play(serve, asker, tmp_path):
        test_asking.test_engine_gets_from_engine(serve, asker, tmp_path, options, 2000)

    return play


FREE, REQUESTED, ASKING, ANSWERED, ACTIVE, FLUSHING, COMMITTING, DALLY, ENDING, STUCK = State
SHOWN = {
    "a request is refused": (refused, [FREE, REQUESTED, FREE]),
    "a file is fetched": (fetched, [FREE, REQUESTED, ACTIVE, FREE]),
    "a client uploads twice": (
        test_uploads.test_a_client_that_keeps_its_port_may_upload_again_and_again,
        [REQUESTED, ACTIVE, FLUSHING, FLUSHING, COMMITTING, DALLY, FREE],
    ),
    "an upload is refused": (
        test_uploads.test_a_refused_commit_sends_the_error_instead_of_the_last_ack,
        [FLUSHING, COMMITTING, FREE],
    ),
    "a full disk": (test_uploads.test_a_full_disk_is_reported_not_acknowledged, [ACTIVE, FLUSHING, FREE]),
    "we ask, with options": (
        asked_with(("blksize", "1428")),
        [FREE, ASKING, ANSWERED, ACTIVE, FLUSHING],
    ),
    "we ask, without": (
        asked_with(),
        [FREE, ASKING, ACTIVE, FLUSHING],
    ),
    "we ask in vain": (test_asking.test_an_error_while_our_request_is_in_flight_ends_it, [FREE, ASKING, FREE]),
    "we ask, and refuse the answer": (
        test_asking.test_an_answer_that_is_refused_tells_the_server,
        [FREE, ASKING, ANSWERED, FREE],
    ),
    "a client ends what a disk does not write": (
        test_stalls.test_the_end_by_its_client_waits_for_a_write_as_long_and_no_longer,
        [ACTIVE, ENDING, STUCK, FREE],
    ),
    "the last block is not written before the bound": (
        test_stalls.test_a_disk_that_never_writes_the_last_block_ends_an_upload_at_the_bound,
        [ACTIVE, FLUSHING, ENDING, FREE],
    ),
}


def moves_of(path: list[State]) -> set[tuple[State, State]]:
    return set(itertools.pairwise(path))


def test_every_move_of_the_table_is_shown_below():
    assert set().union(*(moves_of(path) for _, path in SHOWN.values())) == ALL


@pytest.mark.parametrize("scenario", SHOWN)
def test_the_engine_goes_this_way(scenario, seen, request):
    play, path = SHOWN[scenario]
    play(**{name: request.getfixturevalue(name) for name in inspect.signature(play).parameters})
    patience = time.monotonic() + PATIENCE_S
    while not moves_of(path) <= seen() and time.monotonic() < patience:
        time.sleep(0.005)
    assert moves_of(path) <= seen()
    assert seen() <= ALL
