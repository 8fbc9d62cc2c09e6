"""The README's examples: run unchanged, and type-checked as strictly as the library."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from mypy import api

from pointsman import Router
from pointsman.testing import FakeControlPlane

CLIENT = Path(__file__).parents[2] / "router_client"
README = CLIENT / "README.md"
NAMES = ("quickstart", "gateway", "cdn", "logged", "test_gateway")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder with the examples, one file each."""
    texts = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for name, text in zip(NAMES, texts, strict=True):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_it_runs_the_two_stage_and_the_testing_examples(
    examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(examples))
    for name in ("gateway", "test_gateway"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    tests = import_module("test_gateway")
    for name in ("gateway", "test_gateway"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])  # removed afterwards
    tests.test_our_gateway_escalates_uncertain_answers()
    tests.test_our_gateway_survives_an_outage()


def test_its_examples_pass_mypy_strict(
    examples: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("MYPYPATH", f"{CLIENT}:{examples}")
    cache = tmp_path_factory.mktemp("mypy")
    files = [str(examples / f"{name}.py") for name in NAMES]
    said, errors, code = api.run(
        ["--strict", "--config-file=", f"--cache-dir={cache}", "--follow-imports=silent", *files]
    )
    assert (code, errors) == (0, ""), said + errors


@pytest.mark.parametrize("name", ["quickstart", "gateway"])
def test_its_examples_grade_with_a_check_of_the_answer(examples: Path, name: str) -> None:
    """Gateways copy from a README: a received answer alone is not a success."""
    (grade,) = (
        ast.unparse(keyword.value)
        for node in ast.walk(ast.parse((examples / f"{name}.py").read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "router.record"
        for keyword in node.keywords
        if keyword.arg == "success"
    )
    assert "is_a_summary(ticket, text)" in grade


def test_it_names_only_methods_that_exist() -> None:
    text = README.read_text()
    for owner, names in (
        (Router, re.findall(r"router\.(\w+)\(", text)),
        (FakeControlPlane, re.findall(r"plane\.(\w+)\(", text)),
    ):
        assert names
        assert [name for name in names if not hasattr(owner, name)] == []
