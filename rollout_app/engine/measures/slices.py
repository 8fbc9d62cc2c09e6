"""Select the endpoints and route pairs that are judged as slices: the first with enough traffic, and all others as one.

A slice is defined by properties known before either arm acts, so it holds comparable tasks of both arms. Slices are
chosen by task counts alone. Their number is bounded, so the cost of an evaluation does not depend on the number of
endpoints.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rollout_app.engine.evidence import ClosedWindow, Differing, Slices, SliceSums

MOST_ENDPOINTS, MOST_PAIRS = 12, 8
_LEAST_SHARE = 0.01  # share of a window's tasks from which a slice is followed
OTHERS = "(others)"


@dataclass(slots=True)
class FollowedSlices:
    """The names of the followed slices, in the order in which they appeared."""

    endpoints: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)

    def take(self, window: ClosedWindow) -> dict[str, tuple[SliceSums, SliceSums]]:
        """Return the window's slices by name. A single endpoint, or a single pair, is not a slice."""
        pairs = _pairs(window.candidate_differing, window.baseline_differing)
        tasks = window.candidate.tasks + window.baseline.tasks
        _follow(self.endpoints, window.endpoints, MOST_ENDPOINTS, tasks)
        _follow(self.pairs, pairs, MOST_PAIRS, tasks)
        slices: dict[str, tuple[SliceSums, SliceSums]] = {}
        for kind, followed, found in (
            ("endpoint", self.endpoints, window.endpoints),
            ("pair", self.pairs, pairs),
        ):
            if len(followed) > 1:
                slices |= _folded(kind, followed, found)
        return slices

    def dump(self) -> list[list[str]]:
        return [self.endpoints, self.pairs]

    @classmethod
    def load(cls, data: Iterable[Iterable[str]]) -> "FollowedSlices":
        endpoints, pairs = data
        return cls(list(endpoints), list(pairs))


def differing_sums(window: ClosedWindow) -> tuple[SliceSums, SliceSums] | None:
    """Return the sums of all differing tasks per arm, or None if an arm with tasks does not report them."""
    arms = (
        (window.candidate, window.candidate_differing), (window.baseline, window.baseline_differing)
    )  # fmt: skip
    if any(differing is None for arm, differing in arms if arm.tasks) or all(d is None for _, d in arms):
        return None
    candidate, baseline = (
        sum(differing.pairs.values(), SliceSums()) if differing else SliceSums() for _, differing in arms
    )
    return candidate, baseline


def _pairs(candidate: Differing | None, baseline: Differing | None) -> Slices:
    if candidate is None or baseline is None:
        return {}
    none = SliceSums()
    return {
        name: (candidate.pairs.get(name, none), baseline.pairs.get(name, none))
        for name in dict.fromkeys((*candidate.pairs, *baseline.pairs))
    }


def _follow(followed: list[str], found: Slices, most: int, tasks: int) -> None:
    if len(followed) >= most:
        return
    for name in sorted(found, key=lambda name: (-_tasks(found[name]), name)):
        if name not in followed and len(followed) < most and _tasks(found[name]) >= _LEAST_SHARE * tasks:
            followed.append(name)


def _tasks(sums: tuple[SliceSums, SliceSums]) -> int:
    return sums[0].tasks + sums[1].tasks


def _folded(kind: str, followed: Iterable[str], found: Slices) -> Mapping[str, tuple[SliceSums, SliceSums]]:
    """Return the sums by name, with all slices that are not followed under one name."""
    known = set(followed)
    slices: dict[str, tuple[SliceSums, SliceSums]] = {}
    for name, (candidate, baseline) in found.items():
        key = f"{kind} {name if name in known else OTHERS}"
        kept = slices.get(key)
        slices[key] = (kept[0] + candidate, kept[1] + baseline) if kept else (candidate, baseline)
    return slices
