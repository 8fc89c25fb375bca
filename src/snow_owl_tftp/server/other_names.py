"""What else a name may mean where no file has it as it was sent, nor without what firmware hangs behind it.

    name ─┬─ without the root, in other encodings, in lower case        text alone
          ├─ each of these in any case                                  names that are known, root by root
          └─ a bare name beside the client's last file, in any case     where siblings says so

May know: how names are spelled, the index of names, where clients' last files lay. Must not open anything, or decide:
whoever tries what comes from here asks the rules about each path anew, since they may refuse it.

Invariants:
- Nothing is yielded twice, nor what was tried before; at most `4 * MAX_SPELLINGS` paths in all, in any case so many
  for each root of a rule.
- What is found in one of these ways holds for one client at one time, so the engine never repeats it.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias

from snow_owl_tftp.config.names import NamesSettings, codec_named
from snow_owl_tftp.content.names import Names, in_lower_case
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.patterns import PathPatterns
from snow_owl_tftp.server.name_index import NameIndex
from snow_owl_tftp.server.siblings import LastFolders

__all__ = ["NameRules", "OtherNames", "Way"]

Way: TypeAlias = Literal["spelling", "case", "sibling"]
"""How a file was found: by another spelling of the name; by one that differs in case; beside the client's last one."""


class NameRules(NamedTuple):
    """[names] of one configuration, compiled.

    Attributes:
        spelled: How names are spelled.
        case: As of the settings.
        siblings: Which bare names are looked for beside the client's last file; None: none.
        optional: Whose absence is no failure; None: nobody's.
    """

    spelled: Names
    case: Literal["exact", "lower", "insensitive"]
    siblings: PathPatterns | None
    optional: PathPatterns | None

    @classmethod
    def of(cls, names: NamesSettings, root_dir: bytes) -> "NameRules":
        """Compile settings.

        Args:
            names: These.
            root_dir: The absolute path of the root.

        Raises:
            ConfigError: A pattern is none.
        """
        spelled = Names(
            cut=names.cut,
            root=root_dir if names.strip_root else b"",
            encodings=[codec_named(encoding) for encoding in names.encodings],
            in_lower_case=names.case == "lower",
        )
        return cls(spelled, names.case, _patterns("siblings", names.siblings), _patterns("optional", names.optional))

    def may_mean_more(self, filename: str) -> bool:
        """Tell quickly whether `OtherNames.of` may yield anything; for most names it does not."""
        return self.siblings is not None or self.case == "insensitive" or self.spelled.may_mean_more(filename)

    def is_optional(self, filename: str) -> bool:
        """Tell whether the absence of what a request names is no failure."""
        return self.optional is not None and self._matches(self.optional, self.spelled.spellings_of(filename)[-1])

    def is_sibling(self, name: bytes) -> bool:
        """Tell whether a name is looked for beside the client's last file."""
        is_bare = b"/" not in name and name not in (b".", b"..")
        return is_bare and self._matches(self.siblings, name)

    def _matches(self, patterns: PathPatterns | None, path: bytes) -> bool:
        """In lower case too where the case of names does not count."""
        if patterns is None:
            return False
        return patterns.match(path) or (self.case != "exact" and patterns.match(in_lower_case(path)))


class OtherNames:
    """Says what else a name may mean.

    Attributes:
        index: The names below the root.
        folders: Where clients' last files lay.
    """

    def __init__(self) -> None:
        """Begin with an empty index, and no client."""
        self.index = NameIndex()
        self.folders = LastFolders()

    def close(self) -> None:
        """End what keeps the index."""
        self.index.close()

    def figures(self) -> dict[str, int]:
        """Return what there is to count, of what is in use."""
        clients = {"siblings_remembered": len(self.folders)} if len(self.folders) else {}
        return {**self.index.figures(), **clients}

    def knows(self, host: str) -> bool:
        """Tell whether it is known where a client's last file lay."""
        return self.folders.beside(host, b"") is not None

    def of(
        self, rules: NameRules, filename: str, host: str, places_of: Callable[[bytes], tuple[bytes, ...]]
    ) -> Iterator[tuple[bytes, Way]]:
        """Yield paths to try, and how each was come by; may be called by any thread.

        Args:
            rules: Of the configuration that the request is answered by.
            filename: As the request spells it.
            host: Of the client.
            places_of: Says in which directories below the root a path is looked for; see `roots.places_of`.
        """
        known = rules.spelled.spellings_of(filename)
        others = rules.spelled.others_of(filename)
        seen = set(known)
        yield from _new(((path, "spelling") for path in others), seen)
        is_in_any_case = rules.case == "insensitive"
        if is_in_any_case:
            yield from _new(self._in_any_case([*known, *others], places_of), seen)
        if rules.siblings is not None:
            bare = filter(rules.is_sibling, (*known, *others))
            beside = [path for name in bare if (path := self.folders.beside(host, name)) is not None]
            yield from _new(((path, "sibling") for path in beside), seen)
            if is_in_any_case:
                yield from _new(((path, "sibling") for path, _ in self._in_any_case(beside, places_of)), seen)

    def _in_any_case(
        self, paths: list[bytes], places_of: Callable[[bytes], tuple[bytes, ...]]
    ) -> Iterator[tuple[bytes, Way]]:
        for path in paths:
            for place in places_of(path):
                if (found := self.index.find(path, place)) is not None:
                    yield found, "case"


def _new(found: Iterator[tuple[bytes, Way]], seen: set[bytes]) -> Iterator[tuple[bytes, Way]]:
    for path, way in found:
        if path not in seen:
            seen.add(path)
            yield path, way


def _patterns(key: str, patterns: tuple[str, ...]) -> PathPatterns | None:
    """Compile globs, of which one without "/" matches the last part of a name, wherever that lies."""
    if not patterns:
        return None
    try:
        return PathPatterns(pattern if "/" in pattern or not pattern else f"**/{pattern}" for pattern in patterns)
    except ConfigError as error:
        raise ConfigError(f"names.{key}: {error}") from error
