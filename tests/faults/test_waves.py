"""Which faults are injected together."""

import random
from collections import Counter
from itertools import islice

import pytest

from tests.faults.kinds import KINDS, Kind
from tests.faults.kinds.place import EVERYTHING
from tests.faults.waves import BESIDE_EVERYTHING, Where, waves

ON_POSTGRES: list[Where] = [
    ("database", 0), ("Redis", 0),
    *((part, number) for part in ("gateway", "clients", "worker", "beat") for number in (0, 1)),
]  # fmt: skip
ON_SQLITE: list[Where] = [("database", 0), ("gateway", 0), ("clients", 0), ("clients", 1)]
SQLITE_KINDS = [kind for kind in KINDS if not kind.on_postgres_only]


def _drawn(kinds: list[Kind], places: list[Where], number: int) -> list[list[tuple[Kind, Where]]]:
    return list(islice(waves(kinds, places, random.Random(1), once=False), number))


def test_each_kind_has_a_unique_name() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 60


@pytest.mark.parametrize(("kinds", "places"), [(KINDS, ON_POSTGRES), (SQLITE_KINDS, ON_SQLITE)])
def test_no_place_is_used_twice_in_a_wave(kinds: list[Kind], places: list[Where]) -> None:
    for wave in _drawn(kinds, places, 100):
        struck = [where for _, where in wave]
        assert len(set(struck)) == len(struck)
        assert all(kind.part == part for kind, (part, _) in wave)
        if (EVERYTHING, 0) in struck:
            assert {part for part, _ in struck} <= {EVERYTHING, *BESIDE_EVERYTHING}


def test_kinds_of_a_part_are_equally_frequent() -> None:
    times = Counter(kind for wave in _drawn(KINDS, ON_POSTGRES, 400) for kind, _ in wave)
    assert set(times) == set(KINDS)
    for part in {kind.part for kind in KINDS}:
        counts = [number for kind, number in times.items() if kind.part == part]
        assert max(counts) - min(counts) <= 1, part


@pytest.mark.parametrize(("kinds", "places"), [(KINDS, ON_POSTGRES), (SQLITE_KINDS, ON_SQLITE)])
def test_a_slice_draws_each_kind_and_ends(kinds: list[Kind], places: list[Where]) -> None:
    drawn = [kind for wave in waves(kinds, places, random.Random(1), once=True) for kind, _ in wave]
    assert set(drawn) == set(kinds)
    assert len(drawn) <= len(kinds) + 3  # the last one of a part with two places may be drawn with another
