"""One template, ready to be rendered: bounded in work and in bytes, strict about what is not known.

    Template.render(context) ─minijinja─► text ─► does it say "none"? ─► bytes
                               └ TemplateFailure: pxe.j2:7: undefined value

May know: minijinja, sources and contexts. Must not read a file, know who asks, or answer anybody.

Invariants:
- A template reads no file: what it may include was read before. It sees text, numbers and tables, no object of ours.
- Work is bounded by fuel, text by fuel and then by `MAX_TEXT_BYTES`; recursion by minijinja. What fuel does not bound
  are lists that are put into themselves; only whoever writes templates can do that (SECURITY.md).
- A name that is not there is a failure, and so is a known one that is none where it is printed: `hostname=None` boots
  something else than was meant. What is tested (`if`, `or`, `==`) may be none.
- A panic in minijinja costs one rendering.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import minijinja

__all__ = ["MAX_TEXT_BYTES", "Template", "TemplateFailure"]

_FUEL: Final = 100_000
"""Some 8,000 to 30,000 turns of a loop, by what it looks up: 2 to 4 ms (benchmarks/templates.py)."""
MAX_TEXT_BYTES: Final = 1 << 20
"""A boot configuration has some kilobytes; an autoinstall file with every package and key tens of them."""
_PRINTS_NONE: Final = "prints what is none for this client; test it with {% if … %}, or write {{ … or … }}"
_UNDEFINED: Final = "undefined value"
_MAX_SHOWN: Final = 80
"""Characters of a line of a template in a line of the log."""
_NONE_WORD: Final = "none"
_NONE_MARK: Final = "\ue000none\ue001"
_PLACE: Final = re.compile("\ue000([^\ue000\ue001]*)\ue002([0-9]+)\ue001")
_CAUSE: Final = re.compile(r"^caused by: (.*) \(in (.*):([0-9]+)\)$", re.MULTILINE)
_IN: Final = re.compile(r" \(in [^()]*:[0-9]+\)$")
_DOTTED: Final = re.compile(r"[\w.]*$")
_TAG: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)


class TemplateFailure(Exception):  # noqa: N818 - one rendering, and nobody's bug of ours
    """A template could not be rendered for somebody.

    Attributes:
        where: File and line, as far as they are known.
        what: In words of one line.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class Template:
    """One template, and all that it may include.

    Each has an environment of its own, which any thread may use, several at once.

    Attributes:
        name: As the entry has it.
    """

    def __init__(self, folder: str, name: str, sources: Mapping[str, str]) -> None:
        """Compile it; the sources were checked.

        Args:
            folder: Whom to name before a template; empty: names are paths.
            name: Of the template.
            sources: All templates, by name.
        """
        self.name = name
        self._folder = folder
        self._sources = sources
        self._environment = _environment(sources)

    def render(self, context: Mapping[str, Any]) -> bytes:
        """Render for one context: text, numbers, and mappings of these.

        Returns:
            UTF-8.

        Raises:
            TemplateFailure: It cannot be rendered for this context.
        """
        text = self._render(self._environment, context)
        if _NONE_WORD in text.lower():  # seldom, and then hardly ever ours
            self._refuse_none(context)
        data = text.encode("utf-8", "replace")
        if len(data) > MAX_TEXT_BYTES:
            raise TemplateFailure(self._path(self.name), f"makes more than {MAX_TEXT_BYTES >> 20} MiB")
        return data

    def _render(self, environment: minijinja.Environment, context: Mapping[str, Any]) -> str:
        try:
            return environment.render_template(self.name, **context)
        except minijinja.TemplateError as error:
            raise self._failure(error) from None
        except Exception as error:  # of an object of Python's: a method of a mapping that was called wrongly
            raise TemplateFailure(self._path(self.name), f"{type(error).__name__}: {_one_line(str(error))}") from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            # Nobody says what a panic leaves behind.
            self._environment = _environment(self._sources)
            self.__dict__.pop("_careful", None)
            raise TemplateFailure(self._path(self.name), f"minijinja failed: {_one_line(str(error))}") from None

    def _failure(self, error: minijinja.TemplateError) -> TemplateFailure:
        causes = _CAUSE.findall(str(error))
        if causes:  # of an include that failed: where, and why
            what, name, line = causes[-1]
            if what == _UNDEFINED:  # of an include minijinja says no more than where
                what = f'{what} in "{_line_of(self._sources.get(name, ""), int(line))}"'
        else:
            what, name, line = error.detail or error.message, error.name or self.name, str(error.line or "")
            if error.kind == "UndefinedError" and error.range is not None:
                what = f"{_expression_at(self._sources.get(name, ''), *error.range)} is not known for this client"
        where = self._path(name) + (f":{line}" if line else "")
        return TemplateFailure(where, _one_line(_IN.sub("", what)))

    def _refuse_none(self, context: Mapping[str, Any]) -> None:
        """Find out whether a text that says none says it of something that is not known."""
        told = self._render(self._careful, context)
        before, mark, _ = told.partition(_NONE_MARK)
        if not mark:
            return
        places = _PLACE.findall(before)
        name, line = places[-1] if places else (self.name, "")
        where = self._path(name) + (f":{line}" if line else "")
        raise TemplateFailure(where, _PRINTS_NONE)

    @cached_property
    def _careful(self) -> minijinja.Environment:
        """Renders the same, with a mark before each expression that says where it stands, and one for what is none."""
        sources = {name: _with_places(name, source) for name, source in self._sources.items()}
        return _environment(sources, finalizer=lambda value: _NONE_MARK if value is None else NotImplemented)

    def _path(self, name: str) -> str:
        return str(Path(self._folder, name))


def _environment(sources: Mapping[str, str], **more: Any) -> minijinja.Environment:
    environment = minijinja.Environment(
        loader=sources.get,
        fuel=_FUEL,
        undefined_behavior="strict",
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        debug=False,
        # Python's methods of strings include format, whose widths cost no fuel.
        pycompat=False,
        auto_escape_callback=lambda name: False,
        **more,
    )
    environment.remove_global("debug")  # it prints all there is
    return environment


def _with_places(name: str, source: str) -> str:
    def mark(tag: re.Match[str]) -> str:
        if not tag[0].startswith("{{"):
            return tag[0]
        line = source.count("\n", 0, tag.start()) + 1
        return f"\ue000{name}\ue002{line}\ue001{tag[0]}"

    return _TAG.sub(mark, source)


def _expression_at(source: str, begin: int, end: int) -> str:
    """Return what stands at a span of bytes, with what it is a part of."""
    text = source.encode()
    before = _DOTTED.search(text[:begin].decode("utf-8", "replace"))
    return (before[0] if before else "") + text[begin:end].decode("utf-8", "replace")


def _line_of(source: str, number: int) -> str:
    lines = source.split("\n")
    return lines[number - 1].strip()[:_MAX_SHOWN] if 0 < number <= len(lines) else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
