"""What `import snow_owl_tftp` promises: these names, each documented, and a cheap import."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import textwrap
from dataclasses import MISSING

import pytest

import snow_owl_tftp

NAMES = [
    "AsyncClient",
    "BadPacket",
    "Client",
    "ClientSettings",
    "Completion",
    "ConfigError",
    "ConfinedFile",
    "Counts",
    "EngineError",
    "ForkedError",
    "InternalError",
    "ReadRequest",
    "Refuse",
    "RefusedError",
    "Response",
    "Server",
    "TftpError",
    "TftpUrl",
    "TransferAborted",
    "TransferChanged",
    "TransferDiskFull",
    "TransferError",
    "TransferRefused",
    "TransferResult",
    "TransferTimedOut",
    "TransferUnreachable",
    "Upload",
    "__version__",
    "get",
    "parse_url",
    "put",
]


def test_names_are_frozen():
    assert sorted(snow_owl_tftp.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_every_name_exists_and_is_documented(name):
    value = getattr(snow_owl_tftp, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "Server"])
def test_every_public_method_is_documented(name):
    kind = getattr(snow_owl_tftp, name)
    for method, function in inspect.getmembers(kind, callable):
        if not method.startswith("_"):
            assert inspect.getdoc(function), f"{name}.{method}"


def test_signatures_are_frozen():
    def parameters(function) -> list[str]:
        return [str(p).split(":")[0].split("=")[0].strip() for p in inspect.signature(function).parameters.values()]

    assert parameters(snow_owl_tftp.get) == ["url", "to", "progress", "**settings"]
    assert parameters(snow_owl_tftp.put) == ["url", "content", "progress", "**settings"]
    for face in (snow_owl_tftp.Client, snow_owl_tftp.AsyncClient):
        assert parameters(face) == ["host", "port", "**settings"]
        assert parameters(face.get) == ["self", "name", "to", "progress"]
        assert parameters(face.put) == ["self", "name", "content", "progress"]
        assert parameters(face.size) == ["self", "name"]
    assert parameters(snow_owl_tftp.Server) == [
        "bind",
        "read",
        "write",
        "root",
        "on_complete",
        "handler_timeout_s",
        "max_upload_bytes",
        "settings",
    ]


FIELDS = {
    "ClientSettings": {
        "blksize": None,
        "windowsize": 64,
        "timeout": None,
        "retries": 5,
        "mode": "octet",
        "port_range": None,
        "bind": None,
        "max_size_bytes": 0,
        "max_transfers": 0,
        "no_options": False,
    },
    "TransferResult": {
        "payload_bytes": MISSING,
        "seconds": MISSING,
        "options": MISSING,
        "blksize": MISSING,
        "windowsize": MISSING,
        "tsize": MISSING,
        "blocks": MISSING,
        "retransmits": MISSING,
        "srtt_s": MISSING,
        "server": MISSING,
        "data": None,
    },
    "ReadRequest": {
        "client": MISSING,
        "client_port": MISSING,
        "server": MISSING,
        "path": MISSING,
        "mode": MISSING,
        "options": MISSING,
        "raw_name": b"",
    },
    "Upload": {
        "client": MISSING,
        "client_port": MISSING,
        "path": MISSING,
        "mode": MISSING,
        "options": MISSING,
        "raw_name": MISSING,
        "data": MISSING,
    },
    "Completion": {
        "client": MISSING,
        "client_port": MISSING,
        "path": MISSING,
        "is_upload": MISSING,
        "outcome": MISSING,
        "payload_bytes": MISSING,
        "size_bytes": MISSING,
        "duration_s": MISSING,
        "blksize_bytes": MISSING,
        "windowsize_blocks": MISSING,
        "retransmits": MISSING,
        "error": MISSING,
        "text": MISSING,
    },
    "Counts": {"transfers": MISSING, "refusals": MISSING, "limits": MISSING},
    "ConfinedFile": {"root": MISSING, "path": MISSING, "hidden": False},
    "Response": {"content": MISSING},
    "Refuse": {"code": 1, "text": "File not found"},
    "TftpUrl": {"host": MISSING, "port": MISSING, "path": MISSING, "mode": None},
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_and_their_defaults_are_frozen(name):
    kind = getattr(snow_owl_tftp, name)
    assert {field.name: field.default for field in dataclasses.fields(kind)} == FIELDS[name]
    assert list(kind.__match_args__) == list(FIELDS[name])  # positional arguments, in this order


def test_every_dataclass_is_named_above_and_cannot_be_changed():
    values = {name: getattr(snow_owl_tftp, name) for name in NAMES}
    kinds = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    assert kinds.keys() == FIELDS.keys()
    assert all(kind.__dataclass_params__.frozen for kind in kinds.values())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_documented(name):
    sections = inspect.getdoc(getattr(snow_owl_tftp, name)).replace("Args:", "Attributes:").split("Attributes:")
    assert [field for field in FIELDS[name] if f"\n    {field}: " not in sections[1]] == []


def public_functions():
    """(name, function) of all that a caller may call: functions, constructors, methods, properties."""
    for name in NAMES:
        value = getattr(snow_owl_tftp, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and not issubclass(value, Exception) and not dataclasses.is_dataclass(value):
            for member, function in inspect.getmembers(value):
                function = function.fget if isinstance(function, property) else function
                if inspect.isfunction(function) and (member == "__init__" or not member.startswith("_")):
                    yield f"{name}.{member}", function


def sections_due(function):
    """The sections that a docstring owes its signature and its own `raise` statements."""
    signature = inspect.signature(function)
    if set(signature.parameters) - {"self"}:
        yield "Args:"
    is_property = function.__qualname__ in PROPERTIES
    if not is_property and signature.return_annotation not in (None, "None"):
        yield "Returns:"
    if any(isinstance(node, ast.Raise) for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))):
        yield "Raises:"


PROPERTIES = {"Server.address"}
"""They are named for what they are, so their first line says what a Returns would."""
REFERENCE = re.compile(r"\b(?:As|See|errors of) (?:Client\.\w+|`get`)")
"""`AsyncClient.get` is described at `Client.get`: once, so that both cannot differ."""
SUMMARY_SAYS_IT = {"Client.counters", "AsyncClient.counters"}


@pytest.mark.parametrize(("name", "function"), [*public_functions()])
def test_every_function_documents_arguments_result_and_errors(name, function):
    text = inspect.getdoc(function)
    if REFERENCE.search(text) or name in SUMMARY_SAYS_IT:
        return
    assert [section for section in sections_due(function) if f"\n{section}\n" not in text] == []


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = snow_owl_tftp.nonsense


def test_import_pulls_in_nothing():
    code = (
        "import sys; before = set(sys.modules); import snow_owl_tftp; dir(snow_owl_tftp);"
        "print(*sorted(m for m in set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "click", "socket", "snow_owl_tftp._engine.engine"} & set(out)
