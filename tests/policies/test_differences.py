"""`differences`: what a reviewer sees of two documents."""

from policies_app.documents.differences import differences
from policies_app.documents.line_diff import side_by_side


def rule(rule_id: str, when: str = "true", use: str = "large") -> dict[str, str]:
    return {"id": rule_id, "when": when, "use": use}


def found(before: dict[str, object], after: dict[str, object]) -> list[tuple[str, str, object, object]]:
    return [(d.path, d.kind, d.before, d.after) for d in differences(before, after)]


def test_it_finds_nothing_between_equals() -> None:
    document: dict[str, object] = {"default": "small", "rules": [rule("a")], "batch": False}
    assert found(document, dict(reversed(document.items()))) == []


def test_it_names_a_changed_value_by_its_path() -> None:
    assert found({"escalate": {"max": 1}}, {"escalate": {"max": 2}}) == [("escalate.max", "changed", 1, 2)]


def test_it_distinguishes_added_from_changed_to_null() -> None:
    assert found({}, {"note": None}) == [("note", "added", None, None)]
    assert found({"note": 1}, {"note": None}) == [("note", "changed", 1, None)]


def test_it_distinguishes_true_from_one() -> None:
    assert found({"batch": True}, {"batch": 1}) == [("batch", "changed", True, 1)]


def test_it_matches_rules_by_id() -> None:
    before: dict[str, object] = {"rules": [rule("a"), rule("b", "x > 1")]}
    after: dict[str, object] = {"rules": [rule("b", "x > 2"), rule("c")]}
    assert found(before, after) == [
        ("rules[a]", "removed", rule("a"), None),
        ("rules[b].when", "changed", "x > 1", "x > 2"),
        ("rules[c]", "added", None, rule("c")),
    ]


def test_it_names_moved_rules_because_the_first_match_wins() -> None:
    before: dict[str, object] = {"rules": [rule("a"), rule("b"), rule("c")]}
    after: dict[str, object] = {"rules": [rule("b"), rule("a"), rule("c")]}
    assert found(before, after) == [("rules[b]", "moved", 2, 1), ("rules[a]", "moved", 1, 2)]


def test_very_long_texts_are_paired_line_by_line_between_their_common_ends() -> None:
    """The best alignment of thousands of equal lines would take minutes, for every reader of the page."""
    before = ["first", "old", *["- - 0"] * 1_100, "older", "last"]
    after = ["first", "new", *["- - 0"] * 1_100, "newer", "last"]
    rows = side_by_side("\n".join(before), "\n".join(after))
    assert [row.kind for row in rows] == ["same", *["changed"] * 1_102, "same"]
    assert [(row.left and row.left.number, row.right and row.right.number) for row in rows] == [
        (at, at) for at in range(1, 1_105)
    ]
    longer = side_by_side("\n".join(before), "\n".join([*after[:-1], "more", "last"]))
    assert [row.kind for row in longer[-3:]] == ["changed", "added", "same"]
    assert {row.kind for row in side_by_side("\n".join(before), "\n".join(before))} == {"gap"}
