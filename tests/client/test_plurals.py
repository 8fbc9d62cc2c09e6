"""One helper writes numbers with their word."""

import pytest

from pointsman.plurals import counted, plural_of


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (1_200, "1,200 tasks"), (0.5, "0.5 tasks")],
)
def test_one_is_singular(number: float, told: str) -> None:
    assert counted(number, "task") == told


def test_a_word_can_have_its_own_plural() -> None:
    assert (counted(1, "entry", "entries"), counted(2, "entry", "entries")) == ("1 entry", "2 entries")
    assert (plural_of(1.0, "is", "are"), plural_of(0, "is", "are")) == ("is", "are")
