"""Who may write what; reading is allowed below the root, which confines it by itself."""

from typing import Any

import pytest

from snow_owl_tftp.config.schema import WriteSettings
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import ReadDecision, WriteDecision
from snow_owl_tftp.policy.machines import NO_MACHINES
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import Request


class Anybody:
    peer = ("192.0.2.7", 2070)
    local_address = None
    endpoint = 0


ASKER: Asker = Anybody()
RRQ, WRQ = (Request(kind, "any", "octet") for kind in (Opcode.RRQ, Opcode.WRQ))


def policy(**settings: Any) -> Policy:
    usual: dict[str, Any] = {"enabled": True, "allowed_patterns": ("open/**",)}
    return Policy(WriteSettings(**(usual | settings)))


def refused(policy: Policy, path: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        policy.decide_write(ASKER, WRQ, path)
    assert caught.value.code == ErrorCode.ACCESS_VIOLATION
    assert "/" not in caught.value.text


@pytest.mark.parametrize("path", [b"file", b"sub/file", b"a/../b"])
def test_reading_is_allowed_and_says_nothing_of_writing(path: bytes) -> None:
    assert policy().decide_read(ASKER, RRQ, (path,)) == ReadDecision((path,))
    assert Policy(WriteSettings()).decide_read(ASKER, RRQ, (path,)) == ReadDecision((path,))


def test_spelling_as_sent_decides_whether_a_name_is_hidden() -> None:
    rules = Policy(WriteSettings())
    assert rules.decide_read(ASKER, RRQ, (b"boot ", b"boot")).paths == (b"boot ", b"boot")
    with pytest.raises(RefusedError) as caught:
        rules.decide_read(ASKER, RRQ, (b".boot ", b".boot"))
    assert caught.value.code == ErrorCode.FILE_NOT_FOUND


def test_decision_holds_for_everybody_where_no_machine_is_known() -> None:
    assert NO_MACHINES.find(ASKER, (b"boot",)) is None
    assert not Policy(WriteSettings()).decide_read(ASKER, RRQ, (b"boot",)).depends_on_asker


@pytest.mark.parametrize("path", [b"open/file", b"closed/file", b"open/../file", b"open/.hidden", b"."])
def test_what_counts_as_writable_is_what_a_request_may_write(path: bytes) -> None:
    rules = policy()
    if path == b"open/file":
        assert rules.is_writable(path)
        assert rules.decide_write(ASKER, WRQ, path).path == path
    else:
        assert not rules.is_writable(path)
        refused(rules, path)


def test_writing_is_refused_unless_enabled() -> None:
    refused(Policy(WriteSettings()), b"open/file")
    refused(policy(enabled=False), b"open/file")


def test_writing_without_a_pattern_is_refused_even_when_enabled() -> None:
    refused(policy(allowed_patterns=()), b"open/file")


@pytest.mark.parametrize("path", [b"file", b"open", b"closed/file", b"OPEN/file"])
def test_writing_where_no_pattern_matches_is_refused(path: bytes) -> None:
    refused(policy(), path)


@pytest.mark.parametrize("path", [b"open/../closed/file", b"open/..", b"../open/file"])
@pytest.mark.parametrize("pattern", ["open/**", "**"])
def test_writing_never_climbs(path: bytes, pattern: str) -> None:
    refused(policy(allowed_patterns=(pattern,)), path)


def test_root_itself_is_never_written() -> None:
    refused(policy(allowed_patterns=("**",)), b".")


def test_dots_within_a_name_do_not_climb() -> None:
    assert policy().decide_write(ASKER, WRQ, b"open/a..b").path == b"open/a..b"


def test_decision_carries_the_conditions_of_writing() -> None:
    rules = policy(create_directories=True, file_mode="0600", fsync=False, on_existing="version")
    assert rules.decide_write(ASKER, WRQ, b"open/file") == WriteDecision(
        path=b"open/file", on_existing="version", create_directories=True, file_mode_bits=0o600, fsync=False
    )


@pytest.mark.parametrize(
    ("on_existing", "allow_overwrite", "expected"),
    [
        ("refuse", False, "refuse"),
        ("refuse", True, "replace"),
        ("replace", False, "replace"),
        ("replace", True, "replace"),
        ("version", False, "version"),
        ("version", True, "version"),
        ("replace_writable", True, "replace_writable"),
    ],
)
def test_overwriting_is_off_unless_asked_for_in_either_spelling(
    on_existing: str, allow_overwrite: bool, expected: str
) -> None:
    rules = policy(on_existing=on_existing, allow_overwrite=allow_overwrite)
    assert rules.decide_write(ASKER, WRQ, b"open/file").on_existing == expected


def test_bad_pattern_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r'^write_config\.allowed_patterns: "a//b"'):
        policy(allowed_patterns=("a//b",))
