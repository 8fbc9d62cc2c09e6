"""The quick consistency check and the one that returns sentences agree on every bucket."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.reporting import consistency
from rollout_app.outcomes.schemas import (
    ReportedBucket,
    ReportedCapped,
    ReportedCost,
    ReportedCostSums,
    ReportedDiffering,
    ReportedGraded,
    ReportedGroup,
    ReportedHistogram,
    ReportedMirror,
    ReportedMoments,
    ReportedShadow,
)

NOW = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC)
# Few and small, so that figures meet, exceed and just miss one another often.
figures = st.integers(0, 4)
reals = st.sampled_from([0.0, 0.5, 1.0, 1.999, 2.0, 2.5, 4.0, 5.0, 16.0])
indexes = st.sampled_from(
    ["0", "-0", "7", "07", "+7", "-17200", "-17201", "16383", "16384", "x", "", "٣", "1 "]
)
names = st.sampled_from(["small", "large", "", "nul\0"])
moments = st.builds(ReportedMoments, figures, reals, reals)
histograms = st.builds(ReportedHistogram, st.just(4), figures, st.dictionaries(indexes, figures, max_size=2))
capped = st.none() | st.builds(ReportedCapped, figures, reals, figures)
graded = st.none() | st.builds(ReportedGraded, figures, figures, figures, reals, figures, capped)
costs = st.builds(ReportedCostSums, figures, figures, reals, figures, capped, graded)
pairs = st.sampled_from(["a>b", "same", "other", "a", "a>\0"])
minutes = st.sampled_from(
    [
        NOW.replace(second=0), NOW, NOW.replace(tzinfo=None, second=0),
        NOW - timedelta(days=7, seconds=30), NOW - timedelta(days=6, hours=23, seconds=30),
        NOW + timedelta(minutes=4, seconds=30), NOW + timedelta(minutes=5, seconds=30),
    ]
)  # fmt: skip
members: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("errors", "escalations", "fallbacks", "retries", "attempts"), figures),
    "minute": minutes, "arm": st.sampled_from(["baseline", "candidate"]),
    "rollout": st.none() | st.just("0192") | st.just("\0"), "stage": st.none() | st.just(0),
    **dict.fromkeys(("endpoint", "rule", "model", "workload"), names),
    "quality": moments, "confidence": moments, "latency_ms": histograms,
    "cost_nusd": st.builds(ReportedCost, figures, figures, reals, figures, capped, graded, histograms),
    "groups": st.dictionaries(
        st.sampled_from(["0", "31", "32"]), st.builds(ReportedGroup, figures, figures), max_size=2
    ),
    "models": st.dictionaries(names, figures, max_size=2),
    "errors_by_kind": st.dictionaries(names, figures, max_size=2),
    "shadow": st.builds(
        ReportedShadow, figures, figures, routes=st.dictionaries(names, figures, max_size=2), evaluation_errors=figures
    ),
    "mirror": st.builds(ReportedMirror, figures, figures, figures, figures, figures),
    "differing": st.none()
    | st.dictionaries(pairs, st.builds(ReportedDiffering, figures, figures, figures, figures, costs), max_size=2),
}  # fmt: skip


def _good(**changes: Any) -> ReportedBucket:
    """Return a bucket of four tasks with every member."""
    return ReportedBucket(**{
        "minute": NOW.replace(second=0), "workload": "w", "arm": "baseline", "version": 1,
        "tasks": 4, "successes": 2, "failures": 1, "ungraded": 1, "errors": 1,
        "quality": ReportedMoments(4, 2.0, 1.999),
        "cost_nusd": ReportedCost(4, 4, 4.0, 2, histogram=ReportedHistogram(4, 1, {"7": 3})),
        "latency_ms": ReportedHistogram(4, 0, {"-17200": 1, "16383": 2}),
        "groups": {"0": ReportedGroup(2, 1)}, "models": {"small": 4}, "errors_by_kind": {"timeout": 1},
        "shadow": ReportedShadow(4, 3, routes={"a": 4}), "mirror": ReportedMirror(3, 1, 1, 1, 0), **changes,
    })  # fmt: skip


@given(st.fixed_dictionaries({}, optional=members))
def test_the_quick_and_the_thorough_check_agree(changes: dict[str, Any]) -> None:
    _agree(_good(**changes))


@pytest.mark.parametrize("member", sorted(members))
def test_the_checks_agree_on_each_member(member: str) -> None:
    """A single member is replaced, so that no other fault hides its own."""

    @given(members[member])
    def about(value: Any) -> None:
        _agree(_good(**{member: value}))

    about()


def test_it_finds_nothing_in_a_consistent_bucket() -> None:
    assert consistency.is_consistent(_good(), NOW)
    assert _sentences(_good()) == []


def _agree(bucket: ReportedBucket) -> None:
    found = _sentences(bucket)
    assert consistency.is_consistent(bucket, NOW) == (not found), found
    assert consistency.contradictions(bucket, NOW) == found


def _sentences(bucket: ReportedBucket) -> consistency.Found:
    """Return the findings of the thorough check, without the quick one."""
    parts: list[Callable[[], consistency.Found]] = [
        lambda: consistency._counts(bucket),
        lambda: consistency._moments(bucket),
        lambda: consistency._costs(bucket),
        lambda: consistency._histogram("latency_ms", bucket.latency_ms, bucket.tasks, exact=False),
        lambda: consistency._details(bucket),
        lambda: consistency._differing(bucket),
        lambda: consistency._place("minute", bucket.minute, bucket, NOW, whole=True),
    ]
    return [sentence for part in parts for sentence in part()]
