"""[[handlers]]: functions of the operator's, of the library's kind, that are asked before templates and files.

    "module:function" ─import, once─► function ─┐
    name ─NamePatterns─► which one ─────────────┴─HandlerDecider─► Response: sent │ Refuse: ERROR │ None: files go on

May know: settings, the library's way to ask a handler. Must not know what a handler does.

Invariants:
- Only names that a pattern matches are asked about; all others cost what they cost without handlers.
- What raises, or takes longer than its time, is ERROR 0 for its client and one event in the log (within the budget of
  lines), and never the end of the server. A function that is no coroutine runs in a thread.
- Modules are imported at the start, and live as long as the process: a reload changes limits, not code.
"""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.library.handler import HandlerDecider, Handlers, check_handler
from snow_owl_tftp.library.responses import ReadRequest, Refuse
from snow_owl_tftp.policy.captures import NamePatterns
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.verdict import IncomingRequest, Verdict

__all__ = ["HandlerNames", "PluggedHandlers"]

_TIMEOUT_S: Final = 10.0
"""As of the library's Server."""


class HandlerNames:
    """Which names handlers are asked about, without the handlers."""

    def __init__(self, settings: Settings) -> None:
        """Compile the patterns.

        Raises:
            ConfigError: One is none.
        """
        self._patterns = NamePatterns(_checked(number, entry.match) for number, entry in _numbered(settings))

    def find(self, paths: tuple[bytes, ...]) -> int | None:
        """Return the number, from 0, of the entry that is asked about a name in these spellings; None: none is."""
        found = next(filter(None, map(self._patterns.find, paths)), None)
        return None if found is None else found.number


class PluggedHandlers:
    """The handlers of one server."""

    def __init__(self, settings: Settings, limits: OptionLimits) -> None:
        """Import them.

        Args:
            settings: All of them.
            limits: What may be negotiated.

        Raises:
            ConfigError: A pattern is none, a module cannot be imported, or what it has of that name is no handler.
        """
        self._names = HandlerNames(settings)
        self._functions = [
            _imported(f"handlers[{number}].handler", entry.handler) for number, entry in _numbered(settings)
        ]
        self._decider = HandlerDecider(Handlers(_nobody, None, None, _TIMEOUT_S), limits, 0)

    def reload(self, limits: OptionLimits) -> None:
        """Negotiate by other limits from now on."""
        self._decider.limits = limits

    def abort_by(self, abort: Callable[[int, str], None]) -> None:
        """Take what ends a started transfer: of a stream that fails."""
        self._decider.abort = abort

    def answer(
        self,
        incoming: IncomingRequest,
        request: Request,
        paths: tuple[bytes, ...],
        otherwise: Callable[[], Verdict | Awaitable[Verdict]],
    ) -> Awaitable[Verdict] | None:
        """Ask the handler whose pattern matches first.

        Args:
            incoming: The request.
            request: The same, parsed.
            paths: The name in its spellings, normalised.
            otherwise: Answers where the handler has nothing to say.

        Returns:
            None where no pattern matches.
        """
        number = self._names.find(paths)
        return None if number is None else self._decider.ask(incoming, request, self._functions[number], otherwise)

    async def close(self) -> None:
        """Let threads go, and wait for the end of every stream, of which no transfer lives any more."""
        self._decider.close()
        await self._decider.wait_closed()


def _numbered(settings: Settings) -> "enumerate[Any]":
    return enumerate(settings.handlers, 1)


def _nobody(request: ReadRequest) -> Refuse:
    return Refuse()


def _checked(number: int, pattern: str) -> str:
    try:
        NamePatterns([pattern])
    except ConfigError as error:
        raise ConfigError(f"handlers[{number}].match: {error}") from error
    return pattern


def _imported(key: str, name: str) -> Callable[[ReadRequest], Any]:
    """Raises: ConfigError."""
    module_name, _, attributes = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever stands in that module
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        remedy = "install the module, or name its folder in PYTHONPATH"
        raise ConfigError(f"{key}: {module_name} cannot be imported ({what}); {remedy}") from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ConfigError(f"{key}: {module_name} has no {attributes}; name a function of it")
        found = getattr(found, attribute)
    try:
        check_handler(name, found)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}; give it one argument, the request") from error
    function: Callable[[ReadRequest], Any] = found
    return function
