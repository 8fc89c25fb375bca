"""The stub, the compiled engine and docs/engine-contract.md: three texts that must say the same."""

import ast
import re
from pathlib import Path

import pytest
from msgspec.structs import fields

from snow_owl_tftp._engine import engine
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.plan import transfer as plan
from snow_owl_tftp.server import engine as server_engine

pytestmark = pytest.mark.once  # texts: the same in every build
REPOSITORY = Path(__file__).resolve().parents[2]
STUB = ast.parse((REPOSITORY / "src/snow_owl_tftp/_engine/engine/__init__.pyi").read_text(encoding="utf-8"))
CONTRACT = (REPOSITORY / "docs/engine-contract.md").read_text(encoding="utf-8")
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
EVENTS = (
    *("Request", "Completion", "Answer", "FirstData", "Received", "Released", "Retired"),
    *("Progress", "Refusals", "ModeChange"),
)


def members_of_stub(name: str) -> set[str]:
    return {node.name for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)} - {"__init__"}


def members_of_engine(name: str) -> set[str]:
    return {member for member in vars(getattr(engine, name)) if not member.startswith("_")}


@pytest.mark.parametrize("name", ["Engine", "ClientClasses", *EVENTS])
def test_stub_names_every_member_of_a_class_and_no_other(name: str) -> None:
    assert members_of_stub(name) == members_of_engine(name)


def test_stub_names_every_counter_in_order() -> None:
    names = [node.target.id for node in CLASSES["Counters"].body if isinstance(node, ast.AnnAssign)]  # type: ignore[union-attr]
    assert names == list(engine.Engine().counters())


def test_stub_plan_has_the_fields_of_a_transfer_plan() -> None:
    assert members_of_stub("Plan") == {field.name for field in fields(plan.TransferPlan)}


def stub_defaults() -> dict[str, object]:
    init = next(node for node in CLASSES["Engine"].body if getattr(node, "name", "") == "__init__")
    assert isinstance(init, ast.FunctionDef)
    return {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        if default is not None
    }


def test_stub_takes_every_setting_of_the_engine() -> None:
    engine.Engine(**stub_defaults())  # an unknown name is a TypeError


def test_defaults_are_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the share of a network, which depends on the windows that are granted."""
    given: dict[str, object] = {}

    class Asked:
        def __init__(self, **arguments: object) -> None:
            given.update(arguments)

        def set_limits(self, **limits: int) -> None:
            assert not any(limits.values()), "without limits, as without a call"

    monkeypatch.setattr(server_engine, "Engine", Asked)
    server_engine.make_engine(Settings())
    del given["network_bytes"]
    assert given == {name: value for name, value in stub_defaults().items() if name in given}


def test_versions_agree() -> None:
    assert plan.CONTRACT_VERSION == engine.CONTRACT_VERSION
    assert f"# The engine contract, version {engine.CONTRACT_VERSION}\n" in CONTRACT


def test_outcomes_agree() -> None:
    assert tuple(outcome.name for outcome in plan.Outcome) == engine.OUTCOMES
    for outcome in plan.Outcome:
        assert f"| {int(outcome)} {outcome.name} |" in CONTRACT


def test_contract_names_every_field_counter_setting_and_call() -> None:
    told = set(re.findall(r"`(\w+)", CONTRACT)) | set(re.findall(r"(\w+)\(", CONTRACT))
    names = {
        *engine.Engine().counters(),
        *members_of_stub("Plan"),
        *members_of_stub("Engine"),
        *(member for event in EVENTS for member in members_of_stub(event)),
        *EVENTS,
    }
    assert names - told == set()
