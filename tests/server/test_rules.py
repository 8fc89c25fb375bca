"""Rules over the wire: who gets what, from which directory, under which options, and what nobody gets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused, Silence
from tests.support.server import ServerThread, serve_in_thread

Rule = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "plain": "of the root",
        "common/both": "of common",
        "common/common": "only of common",
        "site/both": "of the site",
        "site/sub/deep": "deep",
        "machines/127.0.0.1/both": "of the machine",
        "secret/key": "secret",
    }.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "root"


@pytest.fixture
def serve(root: Path) -> Iterator[Any]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def begin(*rules: Rule, **settings: object) -> ServerThread:
            return stack.enter_context(serve_in_thread(root, {"rules": list(rules), **settings}))

        yield begin


def get(server: ServerThread, name: str, **options: Any) -> bytes:
    with Client(server.address) as client:
        return client.get(name, options=options).payload


def refusal(server: ServerThread, name: str) -> int:
    with Client(server.address) as client, pytest.raises(Refused) as caught:
        client.get(name)
    return caught.value.code


def test_first_rule_that_fits_decides(serve: Any) -> None:
    server = serve({"paths": ["secret/**"], "allow": []}, {"clients": ["127.0.0.0/8"]}, {"allow": []})
    assert get(server, "plain") == b"of the root"
    assert refusal(server, "secret/key") == 2


def test_what_no_rule_fits_is_as_without_rules(serve: Any) -> None:
    server = serve({"clients": ["192.0.2.0/24", "2001:db8::/32"], "allow": []})
    assert get(server, "plain") == b"of the root"


def test_ignored_request_gets_no_answer_at_all(serve: Any) -> None:
    server = serve({"paths": ["secret/**"], "allow": "ignore"})
    with Client(server.address, give_up_s=0.5) as client, pytest.raises(Silence):
        client.get("secret/key")
    assert get(server, "plain") == b"of the root"


def test_file_comes_from_the_first_root_that_has_it(serve: Any) -> None:
    server = serve({"roots": ["machines/{address}", "site", "common"]})
    assert get(server, "both") == b"of the machine"
    assert get(server, "sub/deep") == b"deep"
    assert get(server, "common") == b"only of common"
    assert refusal(server, "plain") == 1
