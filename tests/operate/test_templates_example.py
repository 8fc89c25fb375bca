"""docs/templates.md: the rack runs as it is written."""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from tests.support.client import Client
from tests.support.server import serve_command

from snow_owl_tftp import ReadRequest, Response

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/templates.md").read_text(encoding="utf-8")
RACK = REPOSITORY / "examples/rack"


def test_page_shows_what_the_example_holds() -> None:
    (configuration,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S)
    (template,) = re.findall(r"^```jinja\n(.*?)^```$", PAGE, re.M | re.S)
    assert (RACK / "snow-owl.toml").read_text().endswith(configuration)
    assert (RACK / "templates/pxe.j2").read_text() == template


def test_function_of_the_page_is_a_handler() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    names: dict[str, Any] = {}
    exec(block, names)
    asked = [ReadRequest("10.0.0.1", 2000, None, f"state/{name}", "octet", {}) for name in ("help", "x")]
    assert [asyncio.run(names["answer"](request)) for request in asked] == [None, Response("x asks from 10.0.0.1\n")]


def test_rack_answers_as_the_page_says(tmp_path: Path) -> None:
    shown = re.search(r"^```console\n\$ PYTHONPATH=(.*?)^```$", PAGE, re.M | re.S)
    assert shown
    said = re.findall(r"^\$ curl -s tftp://127\.0\.0\.1:6969/(\S+)\n(.*?)(?=^\$|\Z)", shown[1], re.M | re.S)
    assert len(said) == 3
    environment = {**os.environ, "PYTHONPATH": f"{RACK}:{os.environ.get('PYTHONPATH', '')}"}
    arguments = ("--config", str(RACK / "snow-owl.toml"))
    serving = serve_command(None, *arguments, stderr_path=tmp_path / "e", env=environment, cwd=REPOSITORY)
    with serving as server, Client(server.address) as client:
        assert [(name, client.get(name).payload.decode()) for name, _ in said] == said
