"""The configurations that we ship load, and are what their names say."""

from pathlib import Path

import pytest

from snow_owl_tftp.bench.recvmmsg import SHOWN
from snow_owl_tftp.bench.sweeps import PLAIN, linger_targets
from snow_owl_tftp.config.load import load
from snow_owl_tftp.config.schema import BatchSettings

FOLDER = Path(__file__).resolve().parents[2] / "examples/config"


def batch(name: str) -> BatchSettings:
    return load(FOLDER / name).performance.platform.batch


def test_no_batch_turns_every_batched_call_off() -> None:
    settings = batch("no-batch.toml")
    assert set(PLAIN.values()) == {False}
    assert {key: getattr(settings, key) for key in PLAIN} == PLAIN


def test_with_batch_is_the_configuration_of_the_earlier_servers_table() -> None:
    shown = next(target for target in linger_targets() if target.name == SHOWN)
    settings = batch("with-batch.toml")
    assert {key: getattr(settings, key) for key in shown.batch} == shown.batch
    assert settings.enable_recvmmsg
    assert settings.enable_sendmmsg


def test_force_batch_waits_without_looking() -> None:
    settings = batch("force-batch.toml")
    assert settings.batch_timeout_us > 0
    assert not settings.enable_adaptive_batching


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    load(path)
