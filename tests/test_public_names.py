"""What `import snow_owl_tftp` promises: these names, each documented, and a cheap import."""

import inspect
import subprocess
import sys

import pytest

import snow_owl_tftp

NAMES = [
    "AsyncClient",
    "BadPacket",
    "Client",
    "ConfigError",
    "EngineError",
    "InternalError",
    "ReadRequest",
    "Refuse",
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
    assert parameters(snow_owl_tftp.Server) == ["bind", "read", "handler_timeout_s", "settings"]


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
