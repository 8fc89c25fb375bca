"""Who may write what; reading is allowed below the root, which confines it by itself."""

from typing import Any

import pytest

from snow_owl_tftp.config.schema import WriteSettings
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.policy.rules import Policy, ReadDecision, WriteDecision
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode


def policy(**settings: Any) -> Policy:
    usual: dict[str, Any] = {"enabled": True, "allowed_patterns": ("open/**",)}
    return Policy(WriteSettings(**(usual | settings)))


def refused(policy: Policy, path: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        policy.decide(Opcode.WRQ, path)
    assert caught.value.code == ErrorCode.ACCESS_VIOLATION
    assert "/" not in caught.value.text


@pytest.mark.parametrize("path", [b"file", b"sub/file", b"a/../b"])
def test_reading_is_allowed_and_says_nothing_of_writing(path: bytes) -> None:
    assert policy().decide(Opcode.RRQ, path) == ReadDecision(path)
    assert Policy(WriteSettings()).decide(Opcode.RRQ, path) == ReadDecision(path)


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
    assert policy().decide_write(b"open/a..b").path == b"open/a..b"


def test_decision_carries_the_conditions_of_writing() -> None:
    rules = policy(create_directories=True, file_mode="0600", fsync=False, on_existing="version")
    assert rules.decide(Opcode.WRQ, b"open/file") == WriteDecision(
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
    assert rules.decide_write(b"open/file").on_existing == expected


def test_bad_pattern_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r'^write_config\.allowed_patterns: "a//b"'):
        policy(allowed_patterns=("a//b",))
