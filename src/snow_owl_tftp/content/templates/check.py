"""What can be said of templates before anybody asks for one: syntax, names that there are not, files that are missing.

    sources ─check_sources─► nothing, or ConfigError: FILE:LINE: what; remedy

May know: sources, and which names a context has. Must not render.

Invariant: every mistake that is told here is one in each rendering that comes to that place; what depends on who asks
(a variable of one machine) is left to `engine`, which is as strict.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import minijinja

from snow_owl_tftp.errors import ConfigError

__all__ = ["check_sources"]

# What is commented out or raw goes by as a whole.
_TAG: Final = re.compile(r"\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}|\{%.*?%\}", re.DOTALL)
_FILE_NAMED: Final = re.compile(
    r"\{%[-+]?\s*(?:include|extends|import|from)\s+(?P<quote>[\"'])(?P<name>[^\"'\n]*)(?P=quote)\s*(?P<rest>.*?)[-+]?%\}",
    re.DOTALL,
)

_METHODS: Final = frozenset({"get", "items", "keys", "values"})
"""Of each object of a context."""


def check_sources(
    folder: str,
    sources: Mapping[str, str],
    fields: Mapping[str, frozenset[str]],
    captured: Mapping[str, frozenset[str]],
) -> None:
    """Find what is wrong.

    Args:
        folder: Whom to name before a template; empty: names are paths.
        sources: All templates, by name.
        fields: The objects of every context, with what each has.
        captured: The templates that entries name, each with the variables of all its patterns.

    Raises:
        ConfigError: A line for every problem.
    """
    environment = minijinja.Environment(templates=dict(sources), pycompat=False)
    environment.remove_global("debug")  # see `engine`
    problems: list[str] = []
    for name, source in sources.items():
        path = str(Path(folder, name))
        try:
            used = environment.undeclared_variables_in_template(name, nested=True)
        except minijinja.TemplateError as error:
            problems.append(f"{path}:{error.line}: {error.detail or error.message}; mend the template")
            continue
        used -= environment.globals.keys()
        problems += [f"{path}: {problem}" for problem in _unknown(used, fields, captured.get(name))]
        problems += [f"{path}:{line}: {problem}" for line, problem in _missing_files(source, sources)]
    if problems:
        raise ConfigError("\n".join(f"templates: {problem}" for problem in problems))


def _unknown(used: set[str], fields: Mapping[str, frozenset[str]], known: frozenset[str] | None) -> Iterator[str]:
    """Yield names that no context has; `known` None: who includes this may have set others."""
    for name in sorted(used):
        first, _, rest = name.partition(".")
        field = rest.partition(".")[0]
        if first in fields:
            if field and field not in fields[first] | _METHODS:
                near = _meant(f"{first}.{field}", [f"{first}.{other}" for other in fields[first]])
                yield f"there is no {first}.{field}; {near}"
        elif known is not None and first not in known:
            yield f"there is no {first}; {_meant(first, [*known, *fields])}"


def _meant(name: str, known: list[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"


def _missing_files(source: str, sources: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    for tag in _TAG.finditer(source):
        named = _FILE_NAMED.fullmatch(tag[0])
        # An expression that goes on, or one that may be missing, is for the rendering to judge.
        if named is None or (named["rest"] and not named["rest"].startswith(("import ", "as ", "with"))):
            continue
        if named["name"] not in sources:
            line = source.count("\n", 0, tag.start()) + 1
            yield line, f'no template "{named["name"]}"; put it into template_dir, its name ends in .j2'
