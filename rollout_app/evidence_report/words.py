"""The result of a rollout as sentences. Pure."""

from controlplane.web.display import MINUS, money, percent, plural, points, signed
from rollout_app.engine.diagnosis import Change
from rollout_app.evidence_report.realised import Realised

LEAST_COVERED = 0.9995  # share of the tasks; a saving of fewer is shown with it
LEAST_TASKS = 100  # tasks after completion; with fewer, the result is not reported


def realised_sentences(found: Realised, bar: float) -> list[str]:
    """Describe saving and quality after completion next to the projection, then what is unknown."""
    if found.after.tasks < LEAST_TASKS:
        tasks = plural(found.after.tasks, "task")
        return [
            *while_it_ran(found),
            f"Since completion the version has had {tasks}, too few to know its saving since then.",
        ]
    said = [*while_it_ran(found), *_cost(found), *_quality(found, bar), *_late_harm(found)]
    if found.others:
        said.append(
            f"Not counted: {plural(found.others, 'task')} that other versions have served since then."
        )
    return said


def while_it_ran(found: Realised) -> list[str]:
    """Return what the candidate's own tasks saved during the rollout, or nothing if that is unknown."""
    if not found.ran:
        return []
    return [f"{saved_or_unknown(found.ran)} while it ran (both versions in the same minutes)."]


def _cost(found: Realised) -> list[str]:
    change, projected = found.comparison.cost_per_success, found.projected
    if change is None:
        return ["Its saving is unknown: too few tasks before or after have a cost and a grade."]
    after = f"Cost per success after completion: {relative(change)} compared with the week before the rollout"
    if projected is None:
        return [f"{after}; the rollout itself showed no figure."]
    verdict = (
        "as projected"
        if change.low <= projected.high and projected.low <= change.high
        else "less is saved than projected"
        if change.low > projected.high
        else "more is saved than projected"
    )
    said = [f"{after}; in the rollout it was {relative(projected)}: {verdict}."]
    if found.saved_a_day is not None:
        said.append(f"That is {saved(found.saved_a_day)} a day, over {found.span.length}.")
    elif found.saved is not None:
        said.append(f"That is {saved(found.saved)} in {found.span.length}: too short for a figure per day.")
    if found.saved is not None and (part := _covered(found)):
        said.append(part.strip())
    return said


def _quality(found: Realised, bar: float) -> list[str]:
    success, before = found.after.success, found.before.success
    if success is None:
        return ["No task since completion has a grade, so its effect on success is unknown."]
    where = "within" if success >= bar else "below"
    was = "" if before is None else f"{percent(before)} → "
    said = [f"Success: {was}{percent(success)} ({where} the bar of {percent(bar)})."]
    change = found.comparison.failures
    if change is not None and change.is_up:
        said.append(
            f"More tasks fail than in the week before the rollout: {points(change.estimate)} ({points(change.low)} to "
            f"{points(change.high)}). A revert is one click."
        )
    return said


def _late_harm(found: Realised) -> list[str]:
    """Describe parts that are worse although the whole is not shown to be."""
    whole = found.comparison.failures
    if whole is not None and whole.is_up:
        return []
    worse = [(part, part.comparison.failures) for part in found.parts]
    return [
        f"From {part.start:%Y-%m-%d} to {part.end:%Y-%m-%d} more tasks failed: {points(change.estimate)}."
        for part, change in worse
        if change is not None and change.is_up
    ]


def saved_since(found: Realised) -> str:
    """Return one sentence: what a completed rollout has saved since, with its interval, or why that is unknown."""
    if found.after.tasks < LEAST_TASKS:
        return (
            f"Its saving since completion is not known yet: it has had {plural(found.after.tasks, 'task')}."
        )
    if found.saved is None:
        return (
            "Its saving since completion is unknown: too few tasks before or after have a cost and a grade."
        )
    success = "" if found.after.success is None else f" Success is {percent(found.after.success)}."
    return (
        f"{saved_or_unknown(found.saved)} since it completed, compared with the week before the rollout."
        f"{_covered(found)}{success}"
    )


def _covered(found: Realised) -> str:
    """Return a sentence if the saving is not that of all tasks."""
    covered = found.comparison.covered
    if covered > LEAST_COVERED:
        return ""
    return f" That is of {percent(covered)} of its tasks; the other endpoints had too little traffic before."


def saved_or_unknown(change: Change) -> str:
    """Return `saved`, or that the saving is unclear if the interval contains 0."""
    if change.low < 0 < change.high:
        return f"It is unclear whether it saved anything (between {_signed(change.low)} and {_signed(change.high)})"
    return saved(change)


def relative(change: Change) -> str:
    """Format a relative change: `−34.0 % (−40.0 % to −28.0 %)`"""
    estimate, low, high = (
        signed(percent(abs(x)), round(x, 4)) for x in (change.estimate, change.low, change.high)
    )
    return f"{estimate} ({low} to {high})"


def saved(change: Change) -> str:
    """Format saved money, `$3 saved (between $2 and $4)`; a negative saving as extra cost, `$3 more (between $2 and
    $4)`.
    """
    word, sign = ("saved", 1) if change.estimate >= 0 else ("more", -1)
    low, high = sorted((sign * change.low, sign * change.high))
    return f"{money(abs(change.estimate))} {word} (between {_signed(low)} and {_signed(high)})"


def _signed(nusd: float) -> str:
    return f"{MINUS if nusd < 0 else ''}{money(abs(nusd))}"
