"""The open directories of one configuration: root_dir, and the roots of its rules.

    Generation ─open, in a thread─► Sources ─swapped with it─► every request keeps the pair that it began with
                                       └─ not wanted after all ─► close_own

May know: content. Must not know requests, or when a configuration is exchanged.

Invariants:
- Two configurations with the same directories share what is open; so closing one closes only what was opened for it.
- What is replaced closes once nobody looks through it any more. Where links lead elsewhere the last places stay open
  all the same, since workers forget flows at their next turn only (docs/engine-contract.md, "Who owns descriptors").
"""

import os
from collections import deque
from collections.abc import Sequence
from typing import Final, Self

from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.overlay import Overlay
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.decision import ReadDecision
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.roots import open_overlay

__all__ = ["Sources", "open_root"]

_KEPT: Final = 3
"""Sets of places of root_dir."""


class Sources:
    """Where one configuration's content lies.

    Attributes:
        tree: root_dir, and what its links may lead to.
        overlay: The roots of rules; None: no rule has any.
    """

    __slots__ = ("_kept", "_own", "overlay", "tree")

    def __init__(self, tree: FileTree, overlay: Overlay | None, own: tuple[FileTree | Overlay, ...]) -> None:
        """See `open`; `own` were opened for this one."""
        self.tree = tree
        self.overlay = overlay
        self._own = own
        self._kept: deque[tuple[Place, ...]] = deque(maxlen=_KEPT)

    @classmethod
    def open(cls, generation: Generation, already: Self | None = None) -> Self:
        """Open the directories of a configuration; may wait, so call it at the start or in a thread.

        Args:
            generation: The configuration.
            already: What is open of another one; returned, or shared, where the directories are the same.

        Raises:
            ConfigError: One is missing, or may not be entered; the text names its key. Nothing stays open.
        """
        before = None if already is None else already.overlay
        if already is not None and already.tree.asked_for == (generation.root_dir, generation.link_targets):
            tree = already.tree
            overlay = open_overlay(generation, before)
            if overlay is before:
                return already
            return cls(tree, overlay, () if overlay is None else (overlay,))
        tree = open_root(generation.root_dir, generation.link_targets, generation.max_file_size_bytes)
        try:
            overlay = open_overlay(generation, before)
        except BaseException:
            tree.close()
            raise
        return cls(tree, overlay, (tree,) if overlay is None or overlay is before else (tree, overlay))

    def of(self, decision: ReadDecision) -> FileTree | Overlay:
        """Return where to look for what the rules allow."""
        if not decision.roots:
            return self.tree
        assert self.overlay is not None, "whoever has rules with roots has opened them"
        return self.overlay

    def limit_files(self, max_file_size_bytes: int) -> None:
        """Refuse larger files from now on; 0: none."""
        self.tree.max_file_size_bytes = max_file_size_bytes
        if self.overlay is not None:
            self.overlay.limit_files(max_file_size_bytes)

    def look_again(self) -> bool:
        """Follow root_dir and its link targets to where they lead now; call it in a thread.

        Returns:
            Whether that is elsewhere; then flows must be forgotten.

        Raises:
            ConfigError: One leads to no directory; everything stays as it was.
        """
        places = self.tree.places
        if not self.tree.look_again():
            return False
        self._kept.append(places)
        return True

    def look_at_roots(self) -> bool:
        """Do the same for the roots of rules.

        Raises:
            ConfigError: See Overlay.look_again.
        """
        return self.overlay is not None and self.overlay.look_again()

    @property
    def missing(self) -> list[str]:
        """Directories that rules name and in which nothing can be found, since they are not there."""
        return sorted(self.overlay.missing) if self.overlay is not None else []

    def close_own(self) -> None:
        """Close what was opened for this configuration and no other: it is not to be used, or not any more."""
        for source in self._own:
            source.close()

    def close(self) -> None:
        """Close everything; files opened before stay open."""
        self.tree.close()
        if self.overlay is not None:
            self.overlay.close()


def open_root(root_dir: str, link_targets: Sequence[str], max_file_size_bytes: int = 0) -> FileTree:
    """Open root_dir, and what its links may lead to; may wait.

    Raises:
        ConfigError: One is no directory that can be opened, or this user may not enter the root.
    """
    tree = FileTree(root_dir, max_file_size_bytes, link_targets=link_targets)
    if not os.access(root_dir, os.X_OK):
        tree.close()
        raise ConfigError(f"root_dir: {root_dir}: Permission denied; let this user enter it (chmod o+x)")
    return tree
