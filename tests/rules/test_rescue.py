"""The check of failures alone, from plain counts, used if an evaluation raises."""

import math
import random

import pytest

from rollout_app.engine import rescue
from rollout_app.engine.rescue import PlainMinute, failures_alone
from rollout_app.engine.stats import rates


def minutes(count: int, pt: float, pc: float, *, n: int = 100, seed: int = 1) -> list[PlainMinute]:
    rng = random.Random(seed)
    return [
        PlainMinute(
            1, at, nt=n, xt=sum(rng.random() < pt for _ in range(n)), nc=n, xc=sum(rng.random() < pc for _ in range(n))
        )
        for at in range(count)
    ]  # fmt: skip


def test_it_agrees_with_the_engine() -> None:
    seen = minutes(7, 0.2, 0.08)
    harm = failures_alone(seen, weight=0.3)
    assert harm is not None
    llrs = [rates.stratum_llrs(one.nt, one.xt, one.nc, one.xc, rates.HARM_PSIS) for one in seen]
    summed = [sum(column) for column in zip(*llrs, strict=True)]
    expected = rates.log_mixture(summed, rates.HARM_LOG_WEIGHTS)
    assert harm.log_e == pytest.approx(expected + math.log(0.3 * rescue.PART), rel=1e-9)
    assert harm.reaches(0.02)


def test_it_finds_no_harm_in_equal_arms() -> None:
    found = [failures_alone(minutes(50, 0.08, 0.08, seed=seed), weight=0.3) for seed in range(200)]
    assert sum(harm is not None and harm.reaches(0.02) for harm in found) <= 2


@pytest.mark.parametrize("arms", [(0, 100), (100, 0), (0, 0)])
def test_it_has_no_result_if_an_arm_is_empty(arms: tuple[int, int]) -> None:
    nt, nc = arms
    assert failures_alone([PlainMinute(1, 0, nt=nt, xt=nt, nc=nc)], weight=0.3) is None


@pytest.mark.parametrize("sticky", [False, True])
def test_it_finds_a_total_failure_with_sticky_units_too(sticky: bool) -> None:
    harm = failures_alone([PlainMinute(1, 0, nt=20, xt=20, nc=200, xc=16)], weight=0.3, sticky=sticky)
    assert harm is not None and harm.reaches(0.02)


def test_sticky_units_may_fail_three_times_as_often() -> None:
    harm = failures_alone([PlainMinute(1, 0, nt=200, xt=48, nc=2_000, xc=160)], weight=0.3, sticky=True)
    assert harm is not None and not harm.reaches(0.02)


def test_ungraded_successes_are_not_harm() -> None:
    """In each arm, 80 of 1,000 tasks failed; half of the candidate's successes have no grade."""
    seen = [PlainMinute(1, at, nt=54, xt=8, ungraded_t=46, nc=100, xc=8) for at in range(10)]
    harm = failures_alone(seen, weight=0.3)
    assert harm is not None and not harm.reaches(0.02)


def test_minutes_of_a_stage_are_joined_until_both_arms_have_tasks() -> None:
    """Minutes with a single task of one arm have no evidence on their own."""
    seen = [
        PlainMinute(stage, at, nt=at % 2, xt=at % 2, nc=1 - at % 2) for stage in (0, 1) for at in range(50)
    ]
    harm = failures_alone(seen, weight=0.3)
    assert harm is not None
    assert harm.tasks == harm.failures == 50
    assert harm.reaches(0.02)
