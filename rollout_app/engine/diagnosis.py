"""The diagnosis on the review page: what a policy does wrong, in words, from the same sums. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout_app.engine.evidence import ArmSums
from rollout_app.engine.metrics import Metric, count
from rollout_app.engine.stats.rates import rate_interval
from rollout_app.engine.stats.ratios import N_MIN

LEAST_SAVING = 0.10
HIGH_CHEAP_SHARE = 0.5
_WINDOWS = 3  # as many falling windows in a row are a trend


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """code: too_conservative, too_aggressive, not_a_win, healthy or unknown; a sentence with figures."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """One policy over some time, beside what it replaces.

    Costs in the sums are those of all attempts, in nUSD. `strong_tasks`: tasks that a rule sent to the strong
    model at once (escalations come on top). `always_strong_cost`, `always_weak_cost`: what the same tasks would
    have cost on the model ranked strongest, and weakest; None where nothing says. `quality_bar`: the least
    success rate. `windows`: the policy's last windows, oldest first.
    """

    policy: ArmSums
    before: ArmSums
    strong_tasks: int
    always_strong_cost: int | None
    quality_bar: float
    always_weak_cost: int | None = None
    retry_margin: float = 0.02
    windows: Sequence[ArmSums] = ()


def diagnose(figures: PolicyFigures) -> Diagnosis:
    """The first that applies: harm to quality, then no saving, then no win."""
    policy = figures.policy
    graded, _ = count(Metric.FAILURE, policy)
    if graded < N_MIN:
        return Diagnosis("unknown", f"{graded} graded tasks are too few for a diagnosis; {N_MIN} are needed.")
    return (
        _too_aggressive(figures)
        or _too_conservative(figures)
        or _not_a_win(figures)
        or _healthy(figures)
        or _nothing_to_save(figures)
        or Diagnosis("unknown", "Cost per success has not moved enough to say more.")
    )


def _too_aggressive(figures: PolicyFigures) -> Diagnosis | None:
    policy = figures.policy
    cheap = 1 - _strong_share(figures)
    if cheap < HIGH_CHEAP_SHARE:
        return None
    graded, failures = count(Metric.FAILURE, policy)
    success = 1 - failures / graded
    least = 1 - rate_interval(graded, failures)[1]
    if success < figures.quality_bar or (least < figures.quality_bar and _falling(figures.windows)):
        return Diagnosis(
            "too_aggressive",
            f"{cheap:.0%} of the tasks stay on the cheap model and success is {success:.1%} "
            f"(at least {least:.1%}), the bar is {figures.quality_bar:.1%}.",
        )
    if _falling(figures.windows):
        rates = [_success(window) for window in figures.windows[-_WINDOWS:]]
        trend = " → ".join(f"{rate:.1%}" for rate in rates)
        return Diagnosis(
            "too_aggressive", f"{cheap:.0%} of the tasks stay on the cheap model and success falls: {trend}."
        )
    return None


def _too_conservative(figures: PolicyFigures) -> Diagnosis | None:
    if not figures.always_strong_cost or not _could_save(figures):
        return None
    saving = 1 - figures.policy.cost / figures.always_strong_cost
    if saving >= LEAST_SAVING:
        return None
    return Diagnosis(
        "too_conservative",
        f"{_strong_share(figures):.0%} of the tasks end on the strong model (rules, escalations): it saves "
        f"{saving:.1%} against always asking it.",
    )


def _not_a_win(figures: PolicyFigures) -> Diagnosis | None:
    policy, before = figures.policy, figures.before
    if not (before.cost_n and before.successes and policy.cost_n and policy.successes):
        return None
    per_task = policy.cost / policy.cost_n / (before.cost / before.cost_n) - 1
    per_success = policy.cost / policy.successes / (before.cost / before.successes) - 1
    if per_task < 0 <= per_success:
        return Diagnosis(
            "not_a_win",
            f"Cost per task fell by {-per_task:.1%}, cost per success did not ({per_success:+.1%}).",
        )
    retries = policy.retries / policy.tasks - before.retries / before.tasks
    if per_task < 0 and retries > figures.retry_margin:
        return Diagnosis(
            "not_a_win",
            f"Cost per task fell by {-per_task:.1%}, but retries rose by {retries * 100:.1f} points "
            f"(margin {figures.retry_margin * 100:g}).",
        )
    return None


def _healthy(figures: PolicyFigures) -> Diagnosis | None:
    policy, before = figures.policy, figures.before
    if not (before.cost and before.successes and policy.successes):
        return None
    per_success = policy.cost / policy.successes / (before.cost / before.successes) - 1
    success = _success(policy)
    if per_success < 0 and success >= figures.quality_bar:
        return Diagnosis(
            "healthy",
            f"Cost per success is {-per_success:.1%} lower, success {success:.1%} is within the bar of "
            f"{figures.quality_bar:.1%}.",
        )
    return None


def _nothing_to_save(figures: PolicyFigures) -> Diagnosis | None:
    """Within the bar, and asking the strongest less would save next to nothing: rank is strength, not price."""
    strong, weak, success = figures.always_strong_cost, figures.always_weak_cost, _success(figures.policy)
    if not strong or not weak or _could_save(figures) or success < figures.quality_bar:
        return None
    price = (
        f"The model ranked strongest costs {1 - strong / weak:.1%} less than the one ranked weakest"
        if strong < weak
        else f"The one ranked weakest costs {1 - weak / strong:.1%} less than the one ranked strongest"
    )
    return Diagnosis(
        "healthy",
        f"Success {success:.1%} is within the bar of {figures.quality_bar:.1%}. {price}: there is little to save.",
    )


def _could_save(figures: PolicyFigures) -> bool:
    """Whether any policy could save a tenth against always asking the strongest; yes where nothing says no."""
    strong, weak = figures.always_strong_cost, figures.always_weak_cost
    return not strong or weak is None or 1 - weak / strong >= LEAST_SAVING


def _strong_share(figures: PolicyFigures) -> float:
    tasks = figures.policy.tasks
    return min(1.0, (figures.strong_tasks + figures.policy.escalations) / tasks) if tasks else 0.0


def _success(arm: ArmSums) -> float:
    graded, failures = count(Metric.FAILURE, arm)
    return 1 - failures / graded if graded else 0.0


def _falling(windows: Sequence[ArmSums]) -> bool:
    """Each of the last windows is worse than the one before, and the fall is more than chance would do."""
    last = [window for window in windows if count(Metric.FAILURE, window)[0] >= N_MIN][-_WINDOWS:]
    if len(last) < _WINDOWS:
        return False
    rates = [_success(window) for window in last]
    if not all(later < earlier for earlier, later in zip(rates, rates[1:], strict=False)):
        return False
    first, now = (count(Metric.FAILURE, window) for window in (last[0], last[-1]))
    p = (first[1] + now[1]) / (first[0] + now[0])
    error = math.sqrt(p * (1 - p) * (1 / first[0] + 1 / now[0]))
    return rates[0] - rates[-1] > 2 * error
