"""The diagnosis in words. Pure.

    unknown           too few tasks, too many without a grade or a cost, or no clear result yet
    too_aggressive    most tasks stay on cheap models, and success is below the bar or falling
    under_the_bar     success is below the bar for another reason
    dearer            cost per success rose
    not_a_win         cost per task fell, but cost per success did not, or retries rose
    overpaying        the strongest model would cost less than the policy does
    too_conservative  most tasks end on the strong model, so the policy saves next to nothing
    healthy           cost per success fell and success is within the bar; or there is little to save
    no_difference     shown to be equal within the margins
    not_served        nothing is served, so there is no policy to diagnose; given by the review

Every statement about a change is based on an interval, never on a point estimate. The first diagnosis that applies, in
the order of `diagnose`, is returned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pointsman.plurals import counted
from rollout_app.engine.diagnosis.compare import UNEVEN, Cells, Change, PeriodComparison, compare_periods
from rollout_app.engine.diagnosis.figures import OutcomeSums, total
from rollout_app.engine.diagnosis.models import ModelRecord, strongest
from rollout_app.engine.stats.rates import rate_interval
from rollout_app.engine.stats.ratios import N_MIN

LEAST_SAVING = 0.10  # fraction of the cost; below it, a policy saves next to nothing
HIGH_SHARE = 0.5  # a policy counts as cheap, or strong, from this share of tasks on
MOST_MISSING = 0.75  # share of tasks without a grade, or a cost, above which there is no diagnosis
LEAST_CHANGE = 0.01  # smallest relative change that is reported
COST_MARGIN = 0.10  # "no difference": cost is shown to be within this
SUCCESS_MARGIN = 0.02  # and success within this
TREND = 3  # number of falling windows in a row that make a trend


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One of the codes above, and a sentence with its figures."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """The figures of one policy over a period, and of the comparison.

    against         the other side of the comparison in words: "the baseline in the same minutes"
    strong_tasks    number of tasks that a rule or an escalation sent to the strongest model
    models          in the order of the policy, weakest first
    windows         the last parts of the period by endpoint, oldest first
    sampled         grades come later and only for a sample (human review): a large ungraded share is normal
    deff            design effect of sticky units
    """

    policy: OutcomeSums
    quality_bar: float
    comparison: PeriodComparison | None = None
    against: str = "the time before"
    strong_tasks: int = 0
    models: Sequence[ModelRecord] = ()
    windows: Sequence[Cells] = ()
    retry_margin: float = 0.02
    sampled: bool = False
    deff: float = 1.0

    @property
    def strong_share(self) -> float:
        return min(1.0, self.strong_tasks / self.policy.tasks) if self.policy.tasks else 0.0

    @property
    def success(self) -> Change:
        """Success rate of the graded tasks, with its interval."""
        graded, failures = self.policy.graded, self.policy.failures
        low, high = rate_interval(graded, failures, self.deff)
        return Change(1 - failures / graded, 1 - high, 1 - low)


def diagnose(figures: PolicyFigures) -> Diagnosis:
    found = (
        _too_little(figures)
        or _below_the_bar(figures)
        or _falling(figures)
        or _not_comparable(figures)
        or _dearer(figures)
        or _not_a_win(figures)
        or _overpaying(figures)
        or _too_conservative(figures)
        or _healthy(figures)
        or _little_to_save(figures)
        or _no_difference(figures)
        or _not_shown(figures)
    )
    return Diagnosis(found.code, " ".join(filter(None, (found.sentence, _missing(figures, found.sentence)))))


# --- quality ---------------------------------------------------------------------------------------------


def _too_little(figures: PolicyFigures) -> Diagnosis | None:
    policy = figures.policy
    if policy.tasks and not figures.sampled and (policy.ungraded or 0.0) > MOST_MISSING:
        return Diagnosis("unknown", f"{_percent(policy.ungraded)} of the tasks have no grade.")
    if policy.graded < N_MIN:
        return Diagnosis(
            "unknown",
            f"{counted(policy.graded, 'graded task is', 'graded tasks are')} too few for a diagnosis; it needs "
            f"{N_MIN}.",
        )
    return None


def _below_the_bar(figures: PolicyFigures) -> Diagnosis | None:
    success, bar = figures.success, figures.quality_bar
    if success.high >= bar:
        return None
    seen = f"Success is {_percent(success.estimate)} (at most {_percent(success.high)}); the bar is {_percent(bar)}."
    best = strongest(figures.models)
    if best is not None and figures.strong_share > 0.95:
        return Diagnosis(
            "under_the_bar",
            f"{seen} Nearly all tasks already go to {best.alias}, and the policy lists no stronger model.",
        )
    cheap = 1 - figures.strong_share
    if cheap >= HIGH_SHARE and len(figures.models) > 1 and not _equal_arms(figures.comparison):
        return Diagnosis(
            "too_aggressive", f"{_percent(cheap, 0)} of the tasks stay on cheaper models. {seen}"
        )
    if _equal_arms(figures.comparison):
        seen += f" It is not shown to be worse than in {figures.against}, so this version is probably not the cause."
    return Diagnosis("under_the_bar", seen)


def _equal_arms(comparison: PeriodComparison | None) -> bool:
    """Return whether the baseline did no better in the same minutes: then the policy is not the cause."""
    if comparison is None or not comparison.concurrent or comparison.failures is None:
        return False
    return not comparison.failures.is_up


def _falling(figures: PolicyFigures) -> Diagnosis | None:
    """Success falls from window to window, more than chance and the mix of endpoints can explain."""
    last = [cells for cells in figures.windows if total(cells.values()).graded >= N_MIN][-TREND:]
    cheap = 1 - figures.strong_share
    if len(last) < TREND or cheap < HIGH_SHARE or len(figures.models) < 2 or _equal_arms(figures.comparison):
        return None
    rates = [total(cells.values()).success or 0.0 for cells in last]
    if not all(later < earlier for earlier, later in zip(rates, rates[1:], strict=False)):
        return None
    fall = compare_periods(last[-1], last[0], figures.deff).failures
    if fall is None or not fall.is_up:
        return None
    trend = " → ".join(_percent(rate) for rate in rates)
    return Diagnosis(
        "too_aggressive",
        f"{_percent(cheap, 0)} of the tasks stay on cheaper models, and success falls: {trend}.",
    )


# --- change ----------------------------------------------------------------------------------------------


def _not_comparable(figures: PolicyFigures) -> Diagnosis | None:
    """If one side lacks grades or costs for more of its tasks, it could look better or worse for that reason alone."""
    comparison = figures.comparison
    if comparison is None:
        return None
    if (figures.policy.unpriced or 0.0) > MOST_MISSING:
        return Diagnosis(
            "unknown",
            f"{_percent(figures.policy.unpriced)} of the tasks have no known cost: cost per success cannot be "
            "compared.",
        )
    if abs(comparison.excess(comparison.ungraded)) > UNEVEN:
        now, before = (_percent(share) for share in comparison.ungraded)
        return Diagnosis(
            "unknown",
            f"{now} of the tasks have no grade, compared with {before} in {figures.against}: they are not comparable.",
        )
    equal = comparison.cost_per_success is not None and comparison.cost_per_success.within(COST_MARGIN)
    if abs(comparison.excess(comparison.unpriced)) > UNEVEN and not equal:
        now, before = (_percent(share) for share in comparison.unpriced)
        return Diagnosis(
            "unknown",
            f"{now} of the tasks have no known cost, compared with {before} in {figures.against}: "
            "the costs are not comparable.",
        )
    return None


def _dearer(figures: PolicyFigures) -> Diagnosis | None:
    comparison = figures.comparison
    change = comparison.cost_per_success if comparison else None
    if comparison is not None and comparison.from_nothing:
        return Diagnosis("dearer", f"The tasks have a cost now, and cost nothing in {figures.against}.")
    if comparison is None or change is None or not change.is_up or change.estimate < LEAST_CHANGE:
        return None
    worse = ""
    if comparison.failures and comparison.failures.is_up:
        worse = f" Failures rose by {_points(comparison.failures.estimate)}."
    return Diagnosis(
        "dearer",
        f"Cost per success is {_percent(change.estimate)} higher ({_range(change)}) than in {figures.against}.{worse}"
        f"{_mix(comparison)}",
    )


def _not_a_win(figures: PolicyFigures) -> Diagnosis | None:
    comparison = figures.comparison
    if comparison is None or comparison.cost_per_task is None or comparison.cost_per_success is None:
        return None
    task, success, retries = comparison.cost_per_task, comparison.cost_per_success, comparison.retries
    if not task.is_down or task.estimate > -LEAST_CHANGE:
        return None
    fell = f"Cost per task fell by {_percent(-task.estimate)}"
    if success.estimate >= 0 and not success.is_down:
        return Diagnosis(
            "not_a_win", f"{fell}, but cost per success did not: {_signed(success)}.{_mix(comparison)}"
        )
    if retries and retries.low > 0 and retries.estimate > figures.retry_margin:
        return Diagnosis(
            "not_a_win",
            f"{fell}, but retries rose by {_points(retries.estimate)} (the margin is {_points(figures.retry_margin)}).",
        )
    return None


def _healthy(figures: PolicyFigures) -> Diagnosis | None:
    comparison = figures.comparison
    change = comparison.cost_per_success if comparison else None
    if comparison is None or change is None or not change.is_down or change.estimate > -LEAST_CHANGE:
        return None
    if not _within_the_bar(figures):
        return None
    worse = ""
    if comparison.failures and comparison.failures.is_up:
        worse = f" Failures rose by {_points(comparison.failures.estimate)}."
    return Diagnosis(
        "healthy",
        f"Cost per success is {_percent(-change.estimate)} lower ({_range(change)}) than in {figures.against}.{worse} "
        f"Success {_percent(figures.success.estimate)} is within the bar of {_percent(figures.quality_bar)}."
        f"{_mix(comparison)}",
    )


def _within_the_bar(figures: PolicyFigures) -> bool:
    """Return whether success is at or above the bar, and its lower bound at most the margin below it."""
    success = figures.success
    return success.estimate >= figures.quality_bar and success.low >= figures.quality_bar - SUCCESS_MARGIN


def _no_difference(figures: PolicyFigures) -> Diagnosis | None:
    comparison = figures.comparison
    if comparison is None or comparison.cost_per_success is None or comparison.failures is None:
        return None
    change, failures = comparison.cost_per_success, comparison.failures
    if not change.within(COST_MARGIN) or not failures.within(2 * SUCCESS_MARGIN):
        return None
    return Diagnosis(
        "no_difference",
        f"Cost per success is the same as in {figures.against} ({_signed(change)}), and so is success (failures "
        f"{_signed_points(failures)}).{_mix(comparison)}",
    )


def _not_shown(figures: PolicyFigures) -> Diagnosis:
    comparison = figures.comparison
    if comparison is None:
        return Diagnosis("unknown", f"There is nothing to compare with. Success is {_rate(figures.success)}.")
    if comparison.cost_per_success is None:
        return Diagnosis(
            "unknown", f"Cost per success cannot be compared with {figures.against}: {_why_not(comparison)}."
        )
    return Diagnosis(
        "unknown",
        f"The evidence is not conclusive yet: compared with {figures.against}, cost per success changed "
        f"{_signed(comparison.cost_per_success)}; success is {_rate(figures.success)} and the bar is "
        f"{_percent(figures.quality_bar)}.",
    )


def _why_not(comparison: PeriodComparison) -> str:
    if comparison.covered < HIGH_SHARE and not comparison.concurrent:
        return "most tasks are on endpoints that had too little traffic then"
    if min(comparison.tasks) < N_MIN:
        return f"{counted(min(comparison.tasks), 'task is', 'tasks are')} too few"
    return "too few of its tasks have both a known cost and a grade, or they cost nothing"


# --- models ----------------------------------------------------------------------------------------------


def _overpaying(figures: PolicyFigures) -> Diagnosis | None:
    best = strongest(figures.models)
    if best is None or best.always is None or best.always.high > -LEAST_SAVING:
        return None
    return Diagnosis(
        "overpaying",
        f"{best.alias} is the strongest model of this policy, and using it for every task would save about "
        f"{_percent(-best.always.estimate, 0)} ({_range(best.always, 0)}).",
    )


def _too_conservative(figures: PolicyFigures) -> Diagnosis | None:
    best = strongest(figures.models)
    if best is None or best.always is None or figures.strong_share < HIGH_SHARE or not _could_save(figures):
        return None
    most = best.always.high / (1 + best.always.high)  # the most that the policy can save over always using it
    if most >= LEAST_SAVING:
        return None
    saving = best.always.estimate / (1 + best.always.estimate)
    return Diagnosis(
        "too_conservative",
        f"{_percent(figures.strong_share, 0)} of the tasks end on {best.alias}, by a rule or an escalation. The "
        f"policy saves {_percent(max(saving, 0.0))} compared with always using it (at most "
        f"{_percent(max(most, 0.0))}).",
    )


def _little_to_save(figures: PolicyFigures) -> Diagnosis | None:
    """Success is within the bar, and no single model would be a tenth cheaper than the strongest."""
    best = strongest(figures.models)
    if best is None or len(figures.models) < 2 or _could_save(figures) or not _within_the_bar(figures):
        return None
    comparison = figures.comparison
    if comparison and comparison.cost_per_success and not comparison.cost_per_success.within(COST_MARGIN):
        return None
    return Diagnosis(
        "healthy",
        f"Success {_percent(figures.success.estimate)} is within the bar of {_percent(figures.quality_bar)}, and "
        f"there is little to save: no model is {_percent(LEAST_SAVING, 0)} cheaper than {best.alias}.",
    )


def _could_save(figures: PolicyFigures) -> bool:
    """Return whether one other model could be a tenth cheaper than always the strongest; True if that is unknown."""
    best = strongest(figures.models)
    if best is None or best.always is None or any(model.always is None for model in figures.models):
        return True
    cheapest = min(model.always.low for model in figures.models if model.always)
    return 1 - (1 + cheapest) / (1 + best.always.high) >= LEAST_SAVING


# --- words -----------------------------------------------------------------------------------------------


def _mix(comparison: PeriodComparison) -> str:
    """Return a sentence on the effect of the shift of traffic, or "" if it is small or unknown."""
    if comparison.mix is None or comparison.raw is None or abs(comparison.mix) < LEAST_CHANGE:
        return ""
    return (
        f" This is adjusted to one mix of endpoints: the shift of traffic between them alone changed cost per success "
        f"by {comparison.mix * 100:+.1f} %, and without the adjustment the change would be "
        f"{comparison.raw * 100:+.1f} %."
    )


def _missing(figures: PolicyFigures, said: str) -> str:
    """Return a sentence on the tasks without a grade or cost, unless their shares are tiny or already in `said`."""
    policy = figures.policy
    parts = [
        f"{_percent(share)} of the tasks have no {what}"
        for share, what in ((policy.ungraded, "grade"), (policy.unpriced, "known cost"))
        if share is not None and share >= LEAST_CHANGE and f"have no {what}" not in said
    ]
    return f"{' and '.join(parts)}; they are not counted." if parts else ""


def _percent(fraction: float | None, places: int = 1) -> str:
    return "unknown" if fraction is None else f"{fraction * 100:.{places}f} %"


def _points(difference: float) -> str:
    return f"{difference * 100:.1f} points"


def _range(change: Change, places: int = 1) -> str:
    """Add digits until the ends differ: "between 29 and 29 %" reads like an error."""
    low, high = sorted((abs(change.low) * 100, abs(change.high) * 100))
    while places < _MOST_PLACES and f"{low:.{places}f}" == f"{high:.{places}f}":
        places += 1
    if f"{low:.{places}f}" == f"{high:.{places}f}":
        return f"both ends of the interval are {low:.1f} %"
    return f"between {low:.{places}f} and {high:.{places}f} %"


_MOST_PLACES = 3


def _signed(change: Change) -> str:
    return f"between {change.low * 100:+.1f} and {change.high * 100:+.1f} %"


def _signed_points(change: Change) -> str:
    return f"between {change.low * 100:+.1f} and {change.high * 100:+.1f} points"


def _rate(success: Change) -> str:
    return f"{_percent(success.estimate)} (between {success.low * 100:.1f} and {success.high * 100:.1f} %)"
