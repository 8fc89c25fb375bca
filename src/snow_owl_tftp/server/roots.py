"""What rules ask of names and directories, for reads and writes: the border between `policy` and `content`.

    Generation ─open_overlay─► Overlay, or None where no rule has roots
    spellings ─plain_paths─► paths without `..`, so that what a rule matches is what is opened

May know: policy and content. Must not know the engine or what is answered.
"""

from snow_owl_tftp.content.names import climbs_above_root, fold
from snow_owl_tftp.content.overlay import Overlay, OverlayPlan
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.server.generation import Generation

__all__ = ["open_overlay", "plain_paths"]


def open_overlay(generation: Generation, open_already: Overlay | None = None) -> Overlay | None:
    """Open the directories that the rules name; may wait, so call it at the start or in a thread.

    Args:
        generation: Whose rules.
        open_already: Returned where it has the same directories.

    Raises:
        ConfigError: One is missing; the text names the rule and the remedy.
    """
    rules = generation.policy.rules
    if rules is None or not any(rule.roots for rule in rules.rules):
        return None
    wanted = OverlayPlan(
        generation.root_dir, generation.link_targets, frozenset(rules.directories), rules.above_variables
    )
    if open_already is not None and open_already.plan == wanted:
        return open_already
    return Overlay(wanted, rules.directories, generation.max_file_size_bytes)


def plain_paths(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Take the `..` out of paths by their text: `open/../closed/x` must not pass for something in `open`.

    Raises:
        OutsideRootError: One climbs above the root.
    """
    if b".." not in paths[0] and b".." not in paths[-1]:
        return paths
    if any(climbs_above_root(path) for path in paths):
        raise OutsideRootError(by_link=False)
    return tuple(fold(path) for path in paths)
