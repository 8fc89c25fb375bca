"""What rules and roots say of one meaning of a name, asked of the same objects as the server asks.

May know: policy and content. Must not decide which meaning counts.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from snow_owl_tftp.content.overlay import Overlay
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.content.source import NotHere
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.operate.explain.explanation import MeaningTried, RootTried, RulePassed
from snow_owl_tftp.policy.asker import Asker
from snow_owl_tftp.policy.decision import ReadDecision, RootPath
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.roots import plain_paths

__all__ = ["path_of", "said_of", "tell_rules", "text_of", "try_roots"]


def tell_rules(generation: Generation, asker: Asker, paths: tuple[bytes, ...], tried: MeaningTried) -> None:
    """Say which rules do not fit a name, and which one does."""
    rules = generation.policy.rules
    tried.names = [text_of(path) for path in paths]
    if rules is None or not paths:
        return
    with suppress(OutsideRootError):
        paths = plain_paths(paths)
        question = generation.policy.question(asker, paths)
        steps = list(rules.unmet(question, paths[-1]))
        tried.names = [text_of(path) for path in paths]
        tried.passed = [RulePassed(rule.number, key) for rule, key in steps if key]
        tried.rule = next((rule.number for rule, key in steps if not key), 0)


def try_roots(overlay: Overlay, generation: Generation, asker: Asker, decision: ReadDecision) -> Iterator[RootTried]:
    """Look into one root of the rule after the other, as far as the server would."""
    for text, root in _roots_of(generation, asker, decision):
        if root is None:
            yield RootTried(text, "passed over: a variable in it is not known")
            continue
        found = overlay.open(ReadDecision(decision.paths, roots=(root,), require=decision.require))
        path = path_of(generation.root_dir, root, b"")
        if not isinstance(found, NotHere):
            found.close()
            yield RootTried(path, "found")
            return
        yield RootTried(path, said_of(found.refusal))
        if found.refusal.code != ErrorCode.FILE_NOT_FOUND:
            return


def _roots_of(generation: Generation, asker: Asker, decision: ReadDecision) -> Iterator[tuple[str, RootPath | None]]:
    rules = generation.policy.rules
    if rules is None or not decision.rule:
        return
    rule = rules.rules[decision.rule - 1]
    question = generation.policy.question(asker, decision.paths)
    for text, root in zip(rule.rule.roots, rule.roots, strict=True):
        yield text, root.fill(question)


def said_of(refusal: RefusedError) -> str:
    """Return what a refusal says, to the client and to the operator."""
    return refusal.text + (f": {refusal.why}" if refusal.why else "")


def path_of(root_dir: str, root: RootPath | None, path: bytes) -> str:
    """Return where a path lies, links not followed."""
    parts = (*((root.directory, text_of(root.below)) if root else ()), text_of(path))
    return str(Path(root_dir, *(part for part in parts if part)))


def text_of(path: bytes) -> str:
    """Return a path as text, which leads back to the bytes."""
    return os.fsdecode(path)
