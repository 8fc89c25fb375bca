"""What is counted whether or not anybody logs, and where that can be read."""

from pathlib import Path

import pytest
from tests.operate.test_command import config_file
from tests.support.client import Client, Refused
from tests.support.server import serve_command, serve_in_thread, wait_for

from snow_owl_tftp.errors import BadPacket, InternalError, OptionalMissingError, RefusedError
from snow_owl_tftp.events.tally import Tally
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode


def test_tally_names_what_it_counted_and_nothing_else() -> None:
    tally = Tally()
    assert tally.figures() == {}
    tally.outcomes[Outcome.OK] += 2
    tally.outcomes[Outcome.PEER_ERROR] += 3
    tally.probes_total += 2
    tally.found["sibling"] += 1
    tally.outcomes[Outcome.TIMED_OUT] += 1
    for cause in (
        *(RefusedError(1, "x"), RefusedError(1, "x"), OptionalMissingError(1, "x")),
        *(BadPacket("x"), InternalError("x")),
    ):
        tally.refused(cause)
    tally.dropped_total += 4
    assert tally.transfers_total == 6
    assert tally.figures() == {
        "outcomes": "ok:2,timed_out:1,peer_error:1,probe:2",
        "found": "sibling:1",
        "refusals": "file_not_found:2,optional_missing:1,malformed:1,internal:1,dropped:4",
    }


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_name_of_its_own(code: ErrorCode) -> None:
    tally = Tally()
    tally.refused(RefusedError(int(code), "x"))
    assert dict(tally.refusals) == {code.name.lower(): 1}


@pytest.mark.parametrize("level", ["debug", "error"])
def test_endings_and_refusals_are_counted_whoever_listens(root: Path, level: str) -> None:
    with serve_in_thread(root, {"logging.level": level}) as served, Client(served.address) as client:
        client.get("small")
        client.get("small")
        with pytest.raises(Refused):
            client.get("missing")
        with pytest.raises(Refused):
            client.put("small", b"x")
        client.exchange(b"\0\1small\0mail\0")
        tally = served.server.tally
        wait_for(lambda: tally.transfers_total == 2, "both transfers end")
        assert tally.figures() == {
            "outcomes": "ok:2",
            "refusals": "file_not_found:1,access_violation:1,malformed:1",
        }


def test_last_lines_of_the_log_tell_what_was_counted(root: Path, tmp_path: Path) -> None:
    (root / "in").mkdir(exist_ok=True)
    config = config_file(
        tmp_path,
        '[write_config]\nenabled = true\nallowed_patterns = ["in/**"]\non_existing = "replace"\n'
        'on_upload = ["false"]\n',
    )
    with serve_command(root, "--config", config) as server, Client(server.address) as client:
        client.get("small")
        client.put("in/file", b"x")
        with pytest.raises(Refused):
            client.get("missing")
    stopped, lost = server.log.splitlines()[-2:]
    assert "server stopped" in stopped
    assert "transfers=2" in stopped
    assert "outcomes=ok:2 refusals=file_not_found:1" in stopped
    assert "lost since the start" in lost
    assert lost.endswith("on_upload_failed=1")


def test_where_nothing_was_lost_nothing_is_said_of_it(root: Path) -> None:
    with serve_command(root) as server, Client(server.address) as client:
        client.get("small")
    assert "server stopped" in server.log.splitlines()[-1]
