"""What `make fuzz` has found worth keeping: scripts that reach something each, and every one that ever failed."""

import pytest
from tests.fuzz.guided.targets import TARGETS, corpus, loaded


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", TARGETS)
def test_every_kept_script_is_played_without_harm(target):
    scripts = corpus(target)
    assert scripts, "else nothing was played"
    with loaded(target) as check:
        for script in scripts:
            try:
                check(script.read_bytes())
            except BaseException as error:
                error.add_note(f"while playing {script}")
                raise


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", TARGETS)
def test_scripts_at_random_do_no_harm(target, rng):
    """Where atheris cannot be had: what no coverage guides is still played."""
    with loaded(target) as check:
        for _ in range(150):
            check(rng.randbytes(rng.randrange(TARGETS[target])))
