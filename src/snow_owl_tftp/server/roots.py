"""What rules ask of names and directories, for reads and writes: the border between `policy` and `content`.

    Generation ─open_overlay─► Overlay, or None where no rule has roots
    spellings ─plain_paths─► paths without `..`, so that what a rule matches is what is opened
    path ─places_of─► directories below root_dir in which the rules have it looked for

May know: policy and content. Must not know the engine or what is answered.
"""

import os

from snow_owl_tftp.content.names import climbs_above_root, fold
from snow_owl_tftp.content.overlay import Overlay, OverlayPlan
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import RootPath
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.generation import Generation

__all__ = ["open_overlay", "places_of", "plain_paths"]


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


def places_of(generation: Generation, asker: Asker, request: Request, path: bytes) -> tuple[bytes, ...]:
    """Return where the rules have a path looked for, as paths below root_dir (empty: itself), in their order.

    What lies elsewhere is left out, and nothing is left of a path that may not be read.
    """
    rules = generation.policy.rules
    if rules is None or not rules.has_roots:
        return (b"",)
    try:
        decision = generation.policy.decide_read(asker, request, plain_paths((path,)))
    except RefusedError:
        return ()
    if not decision.roots:
        return (b"",)
    found = [_below_root_dir(generation.root_dir, root) for root in decision.roots]
    return tuple(place for place in found if place is not None)


def _below_root_dir(root_dir: str, root: RootPath) -> bytes | None:
    directory = root.directory
    if directory.startswith("/"):
        above = os.path.join(os.path.abspath(root_dir), "")  # noqa: PTH100, PTH118 - text only
        if not (directory + "/").startswith(above):
            return None
        directory = directory[len(above) :]
    parts = (os.fsencode(directory), root.below)
    return b"/".join(part for part in parts if part not in (b"", b"."))
