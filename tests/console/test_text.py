"""Documents as text: the text shown is equivalent to what is served."""

from typing import Any

import pytest

from pointsman.policy import completed, parse
from policies_app.documents.line_diff import side_by_side
from policies_app.documents.yaml_text import EXAMPLE_MODELS, as_yaml, first_policy

DOCUMENTS: list[dict[str, Any]] = [
    {
        "format": 1,
        "workload": "summaries",
        "models": {"zeta": {"model": "a/b"}, "alpha": {"model": "c/d", "params": {"temperature": 0}}},
        "rules": [{"id": "on", "when": 'request.endpoint == "yes"', "use": "zeta", "note": "no"}],
        "default": "zeta",
        "escalate": {
            "max": 1,
            "to": "alpha",
            "on": ["error", "timeout"],
            "when": "response.confidence < 0.5",
        },
        "fallback": ["alpha", "zeta"],
        "inputs": {"contract_value": {"type": "number", "default": 0}},
    },
    {"format": 1, "workload": "w", "models": {"a": {"model": "x: y # z"}}, "default": "a", "fallback": ["a"]},
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_it_parses_back_to_the_same_document(document: dict[str, Any]) -> None:
    kept = completed(document)
    assert completed(parse(as_yaml(kept)).data) == kept


ODD = [
    "1e3", "1E3", "-1e-3", "1.e3", "-.5", "0.1e5", "1e400", "0o17", "0x1F", "12:30", "2020-01-01", "1_000", "yes",
    "off", "null", "~", "", " ", "=", "<<", ".inf", ".NaN", "+1", "007", "- a", "a: b", "#x", "&a", "!x", "%x",
    "two\nlines\n", "trail ", "cr\rlf", "\t", "\x85", "\u2028", "\ufeff", "🚀", "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("odd", [*ODD, 1e-7, 1e22, 5e-324, 100.0, 0, True, None, [], {}], ids=ascii)
def test_a_text_stays_a_text_and_a_number_a_number(odd: Any) -> None:
    """Opened in the editor and saved, a text like 1e3 once became a number."""
    params = {"stop": odd, "list": [odd], "map": {"a": odd, "b": {"c": [odd]}}}
    kept = completed({**DOCUMENTS[1], "models": {"a": {"model": "x/y", "params": params}}})
    assert repr(parse(as_yaml(kept)).data["models"]) == repr(kept["models"])


def test_it_keeps_the_order_of_models_because_it_is_their_rank() -> None:
    shown = as_yaml({**DOCUMENTS[0], "rank": ["alpha", "zeta"]})
    assert shown.index("alpha:") < shown.index("zeta:")
    assert "rank" not in shown


def test_the_first_policy_is_a_valid_document() -> None:
    assert parse(first_policy("new", *EXAMPLE_MODELS)).data["workload"] == "new"


@pytest.mark.parametrize(
    ("workload", "model"),
    [
        ("2024", "a/b"), ("1e3", "a/b"), ("0x1f", "a/b"), ("true", "a/b"), ("Null", "a/b"), ("yes", "a/b"),
        ("w", "@cf/meta/llama"), ("w", "*x/y"), ("w", "a/b: c"), ("w", "a/b:free"), ("w", "gpt😀"), ("w", "gpt-4o"),
        ("w", "a/b #c"), ("w", "a/b, c"), ("w", "[a/b]"), ("w", "{a/b}"), ("w", "1e3"), ("w", "null"), ("w", "a/b'\"c"),
    ],
)  # fmt: skip
def test_a_first_policy_can_be_read_whatever_the_names(workload: str, model: str) -> None:
    data = parse(first_policy(workload, model, "a/c")).data
    assert (data["workload"], data["models"]["small"]["model"]) == (workload, model)


def test_side_by_side_marks_the_differences_in_a_line() -> None:
    (row,) = [row for row in side_by_side("a\nx = 10\nb", "a\nx = 12\nb") if row.kind == "changed"]
    assert row.left and row.right
    assert (row.left.number, row.left.start, row.left.changed) == (2, "x = 1", "0")
    assert (row.right.number, row.right.changed, row.right.end) == (2, "2", "")


def test_side_by_side_omits_lines_far_from_a_change() -> None:
    before = [str(n) for n in range(40)]
    rows = side_by_side("\n".join(before), "\n".join([*before[:20], "new", *before[20:]]))
    assert [row.hidden for row in rows if row.kind == "gap"] == [17, 17]
    assert [row.right.number for row in rows if row.kind == "added" and row.right] == [21]


def test_side_by_side_of_equal_texts_is_one_gap() -> None:
    assert {row.kind for row in side_by_side("a\nb\nc", "a\nb\nc")} == {"gap"}
