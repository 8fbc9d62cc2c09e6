"""`manage.py catalogue import`: the preview of a price list, and its import."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import AlreadyExists, StaleVersion
from policies_app import actions
from policies_app.catalogue import imports, price_files
from policies_app.catalogue.price_files import nusd_per_mtok
from policies_app.models import Model, ModelPrice
from tests.support import builders

SMALL, LARGE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "prices.json").read_text())["cases"]
LITELLM = """{
 "sample_spec": {"input_cost_per_token": "a number", "mode": "one of …"},
 "gpt-4o-mini": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-07,
   "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08, "input_cost_per_token_batches": 5e-08,
   "max_input_tokens": 128000, "max_tokens": 16384, "deprecation_date": "2027-02-01"},
 "anthropic/claude-sonnet-4-5": {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 3e-06,
   "output_cost_per_token": 1.5e-05, "max_input_tokens": 200000},
 "openai/new": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06,
   "output_cost_per_token": 2e-06, "max_tokens": 8192},
 "openai/half": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06},
 "openai/picture": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_token": 1}
}"""


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['value']} {case['unit']}")
def test_it_converts_prices_exactly(case: dict[str, Any]) -> None:
    if case["nusd_per_mtok"] is None:
        with pytest.raises(ValueError, match="is no"):
            nusd_per_mtok(case["value"], case["unit"])
    else:
        assert nusd_per_mtok(case["value"], case["unit"]) == case["nusd_per_mtok"]


@pytest.fixture
def file(tmp_path: Path, db: None) -> Path:
    builders.catalogue()
    path = tmp_path / "prices.json"
    path.write_text(LITELLM)
    return path


def run(file: Path, capsys: Any, *options: str) -> str:
    call_command("catalogue", "import", str(file), *options)
    return str(capsys.readouterr().out)


def test_it_shows_what_would_change_and_writes_nothing(file: Path, capsys: Any) -> None:
    builders.served(builders.environment("production"), builders.workload("support"))
    shown = run(file, capsys, "--overwrite")
    assert "cache read price unknown → $0.0750" in shown
    assert "input price $0.150 → $0.100" in shown
    assert "[served in production/support]" in shown
    assert LARGE not in shown  # unchanged
    assert "Use --apply to write them" in shown
    assert Model.objects.get(name=SMALL).input_nusd_per_mtok == 150_000_000


def test_it_shows_prices_in_full_that_round_to_the_same(db: None) -> None:
    builders.catalogue()
    Model.objects.filter(name=SMALL).update(
        input_nusd_per_mtok=1_251_000_000, output_nusd_per_mtok=1_234_560_000_000
    )
    rows = b"name,input_usd_per_mtok,output_usd_per_mtok\n%s,1.25,1234.561\n" % SMALL.encode()
    (change,) = imports.plan(price_files.read_bytes("p.csv", rows), overwrite=True)
    assert change.lines == ["input price $1.251 → $1.25", "output price $1,234.56 → $1,234.561"]


def test_it_keeps_what_a_person_set(file: Path, capsys: Any) -> None:
    assert "kept: a person set it" in run(file, capsys, "--apply", "--reason", "weekly")
    assert Model.objects.get(name=SMALL).input_nusd_per_mtok == 150_000_000

    run(file, capsys, "--apply", "--overwrite", "--reason", "weekly")
    model = Model.objects.get(name=SMALL)
    assert (model.input_nusd_per_mtok, model.batch_input_nusd_per_mtok) == (100_000_000, 50_000_000)
    assert (str(model.retires_on), model.price_source) == ("2027-02-01", "LiteLLM price map prices.json")

    # Prices written by an import may be changed by the next one.
    file.write_text(LITELLM.replace("1e-07", "2e-07"))
    run(file, capsys, "--apply", "--reason", "weekly")
    model = Model.objects.get(name=SMALL)
    assert model.input_nusd_per_mtok == 200_000_000
    actions.edit_model(model, actor=SYSTEM, input_nusd_per_mtok=1)
    assert "kept: a person set it" in run(file, capsys, "--apply", "--reason", "weekly")
    assert [row.prices["input"] for row in ModelPrice.objects.filter(model=model)][:2] == [1, 200_000_000]


def test_it_adds_the_requested_models(file: Path, capsys: Any) -> None:
    shown = run(file, capsys, "--apply", "--add", "openai/*", "--reason", "new models")
    assert Model.objects.get(name="openai/new").context_window == 8192
    assert "openai/half" in shown
    assert "the list gives no context_window" in shown
    assert not Model.objects.filter(name__in=["openai/half", "openai/picture"]).exists()
    assert Entry.objects.get(action="model.add", target_id="openai/new").reason == "new models"
    again = run(file, capsys, "--apply", "--add", "openai/new", "--reason", "again")
    assert "0 models written." in again


def test_it_reads_csv(file: Path, capsys: Any) -> None:
    path = file.with_suffix(".csv")
    path.write_text(
        "\ufeffname,input_usd_per_mtok,output_usd_per_mtok,context_window,retires_on\nx/y,0.15,0.6,8000,\n"
    )
    run(path, capsys, "--apply", "--add", "*", "--reason", "ours")
    model = Model.objects.get(name="x/y")
    assert (model.input_nusd_per_mtok, model.cache_read_nusd_per_mtok) == (150_000_000, None)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "not a price map"),
        ("a.json", '{"a/b": {"input_cost_per_token": "x"}}', 'model "a/b": input_cost_per_token:'),
        ("a.json", '{"a/b": {"input_cost_per_token": Infinity}}', 'model "a/b": input_cost_per_token:'),
        ("a.json", '{"a/b": {"input_cost_per_token": NaN}}', 'model "a/b": input_cost_per_token:'),
        ("a.json", '{"a/../b": {"input_cost_per_token": 1}}', "not allowed in a URL path"),
        ("a.json", '{"a/b": {"max_input_tokens": 1.5}}', "max_input_tokens: Decimal('1.5') is not a number"),
        ("a.json", '{"a/b": {"max_input_tokens": -1}}', "max_input_tokens: -1 is not a number"),
        ("a.json", '{"a/b": 7}', 'model "a/b": it is not a JSON object'),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.csv", "name,name\nx/y,x/z\n", "names a column twice"),
        ("a.csv", "name\nx/y,1\n", "line 2: more fields than the first line names"),
        ("a.csv", "name,context_window\nx/y,0\n", "line 2: context_window: '0' is not a number"),
        ("a.csv", 'name\n"x/y\n', "is not a valid CSV: line 2"),
        ("a.csv", "name\n" + "x" * 200_000, "line 2"),  # the limit of a field depends on the process
        ("a.csv", "", "no column `name`"),
        ("a.json", '{"a/b": {"deprecation_date": "soon"}}', "is not a date"),
        ("a.csv", "input_usd_per_mtok\n1\n", "no column `name`"),
        ("a.csv", "name,price\nx,1\n", "unknown column 'price'"),
        ("a.csv", "name,input_usd_per_mtok\nx/y,1\nx/z,free\n", "line 3: input_usd_per_mtok:"),
        ("a.csv", "name\nx/y\nx/y\n", "line 3: x/y is listed twice"),
    ],
)
def test_it_names_what_is_wrong_and_imports_nothing(
    file: Path, name: str, content: str, sentence: str
) -> None:
    path = file.with_name(name)
    path.write_text(content)
    with pytest.raises(CommandError) as refused:
        call_command("catalogue", "import", str(path), "--apply", "--add", "*", "--reason", "r")
    assert sentence in str(refused.value)
    assert Model.objects.count() == 2


def test_it_counts_the_problems_beyond_twenty(file: Path) -> None:
    file.write_text(json.dumps({f"a/{n}": {"input_cost_per_token": -1} for n in range(25)}))
    with pytest.raises(CommandError) as refused:
        call_command("catalogue", "import", str(file))
    lines = str(refused.value).splitlines()
    assert lines[-2:] == ["and 5 more problems of input_cost_per_token", "Nothing was imported."]
    assert len(lines) == 22


def test_each_kind_of_problem_has_its_own_limit_of_twenty(file: Path) -> None:
    bad = {f"a/{n}": {"input_cost_per_token": -1, "deprecation_date": "soon"} for n in range(30)}
    file.write_text(json.dumps(bad))
    with pytest.raises(CommandError) as refused:
        call_command("catalogue", "import", str(file))
    lines = str(refused.value).splitlines()
    assert (
        sum("is not a valid price" in line for line in lines)
        == sum("is not a date" in line for line in lines)
        == 20
    )


def test_it_reads_no_more_of_a_file_than_the_size_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_files, "MAX_BYTES", 100)
    with pytest.raises(CommandError, match="more than 100 bytes"):
        call_command("catalogue", "import", str(file))


def test_a_model_listed_twice_uses_the_entry_with_its_full_name(file: Path, capsys: Any) -> None:
    short = {"litellm_provider": "deepseek", "mode": "chat", "input_cost_per_token": 1e-06, "max_tokens": 10}
    file.write_text(json.dumps({"chat": short, "deepseek/chat": short | {"input_cost_per_token": 2e-06}}))
    run(file, capsys, "--apply", "--add", "deepseek/*", "--reason", "new")
    assert Model.objects.get(name="deepseek/chat").input_nusd_per_mtok == 2_000_000_000


def test_a_model_without_a_price_has_an_unknown_price(file: Path, capsys: Any) -> None:
    file.write_text(json.dumps({"a/free": {"mode": "chat", "max_tokens": 0, "max_input_tokens": 10}}))
    run(file, capsys, "--apply", "--add", "a/*", "--reason", "new")
    assert Model.objects.get(name="a/free").input_nusd_per_mtok is None


def test_it_limits_the_models_of_one_import(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MOST_WRITTEN", 3)
    file.write_text(json.dumps({f"a/{n}": {"mode": "chat", "max_tokens": 10} for n in range(4)}))
    with pytest.raises(CommandError, match="4 models would be written, but one import may write at most 3"):
        call_command("catalogue", "import", str(file), "--apply", "--add", "a/*", "--reason", "all")
    assert Model.objects.count() == 2


def test_it_writes_nothing_if_one_model_changed_meanwhile(file: Path) -> None:
    listed = price_files.read(file)
    changes = imports.plan(listed, add=["openai/new"], overwrite=True)
    actions.edit_model(Model.objects.get(name=SMALL), actor=SYSTEM, output_nusd_per_mtok=1)
    with pytest.raises(StaleVersion):
        imports.apply(listed.source, changes, actor=SYSTEM, reason="r")
    assert not Model.objects.filter(name="openai/new").exists()


def test_other_changes_wait_for_a_few_models_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of 500 models kept pins and rollbacks waiting until its end."""
    monkeypatch.setattr(imports, "AT_ONCE", 2)
    file.write_text(json.dumps({f"a/{n}": {"mode": "chat", "max_tokens": 10} for n in range(5)}))
    listed = price_files.read(file)
    together: list[int] = []
    apply = imports._apply_together

    def counted(some: Sequence[imports.Change], *given: Any) -> None:
        together.append(len(some))
        apply(some, *given)

    monkeypatch.setattr(imports, "_apply_together", counted)
    assert imports.apply(listed.source, imports.plan(listed, add=["a/*"]), actor=SYSTEM, reason="r") == 5
    assert together == [2, 2, 1]
    assert Model.objects.filter(name__startswith="a/").count() == 5


def test_it_says_how_many_were_written_before_one_could_not_be(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "AT_ONCE", 2)
    file.write_text(json.dumps({f"a/{n}": {"mode": "chat", "max_tokens": 10} for n in range(5)}))
    add = actions.add_model

    def refused(name: str, **fields: Any) -> Any:
        if name == "a/3":
            raise AlreadyExists("There is already a model a/3.")
        return add(name, **fields)

    monkeypatch.setattr(imports, "add_model", refused)
    with pytest.raises(
        CommandError, match="2 of 5 models were written, then: There is already a model a/3"
    ) as refusal:
        call_command("catalogue", "import", str(file), "--apply", "--add", "a/*", "--reason", "all")
    assert "Nothing was written" not in str(refusal.value)
    assert sorted(Model.objects.filter(name__startswith="a/").values_list("name", flat=True)) == [
        "a/0",
        "a/1",
    ]


def test_without_a_file_it_uses_the_installed_price_map(
    file: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_files, "installed_price_map", lambda: file)
    call_command("catalogue", "import")
    assert "would be written" in capsys.readouterr().out
    monkeypatch.setattr(price_files, "installed_price_map", lambda: None)
    with pytest.raises(CommandError, match="litellm package is not installed"):
        call_command("catalogue", "import")


def test_it_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("catalogue", "import", str(tmp_path / "missing.json"))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="not UTF-8"):
        call_command("catalogue", "import", str(tmp_path / "binary.json"))


def test_it_writes_only_with_a_reason(file: Path) -> None:
    with pytest.raises(CommandError, match="needs a --reason"):
        call_command("catalogue", "import", str(file), "--apply")
