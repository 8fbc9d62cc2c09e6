"""The page's view of a candidate before it moves anything, and of a completed one afterwards. Reads only."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.core import clock
from controlplane.core.errors import NotServed
from controlplane.web.display import NONE, percent
from policies_app.documents.differences import Difference, differences
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app.blast_radius.latency import projected_latency
from rollout_app.blast_radius.projection import Bounds
from rollout_app.blast_radius.radius import BlastRadius, radius_of, radius_of_candidate
from rollout_app.blast_radius.words import EndpointRow, endpoint_row, headline, unknowns
from rollout_app.engine.states import State
from rollout_app.evidence_report.realised import Realised, read_realised, realised
from rollout_app.evidence_report.words import realised_sentences, saved_since, while_it_ran
from rollout_app.models import Rollout

log = logging.getLogger(__name__)

_ENDPOINTS = 8  # endpoints that are listed


@dataclass(frozen=True, slots=True)
class Ahead:
    """The blast radius as the page shows it.

    `per`: the time of the counts and costs. `asked`: (model, share of the tasks that ask it at some stage).
    `problem`: why there is nothing to show.
    """

    headline: str = ""
    basis: str = ""
    per: str = "a day"
    owner: str = ""
    endpoints: tuple[EndpointRow, ...] = ()
    more: int = 0
    asked: tuple[tuple[str, str], ...] = ()
    differing: str = NONE
    latency: str = ""
    unknown: tuple[str, ...] = ()
    notices: tuple[Any, ...] = ()
    differences: tuple[Difference, ...] = ()
    problem: str = ""


_BASES = {
    "shadow": "Based on what the routers decided in shadow, at the traffic of the last 7 days",
    "documents": "Based on both policies, at the traffic of the last 7 days",
    "nothing": "No data to base it on",
}


def ahead_of(rollout: Rollout) -> Ahead:
    """Return the view of a rollout. An error is shown, and the page works without it: it must not stop a rollback."""
    return _shown(lambda: radius_of(rollout), rollout.baseline, rollout.candidate)


def ahead_of_candidate(
    environment: Environment, workload: Workload, candidate: PolicyVersion
) -> Ahead | None:
    """Return the view of a version that is not proposed yet; None if the environment does not serve the workload."""
    try:
        radius = radius_of_candidate(environment, workload, candidate)
    except NotServed:
        return None
    return _shown(lambda: radius, radius.baseline, candidate)


def _shown(read: Callable[[], BlastRadius], baseline: PolicyVersion, candidate: PolicyVersion) -> Ahead:
    changed = tuple(differences(baseline.document, candidate.document))
    try:
        return _ahead(read(), changed)
    except Exception:
        log.exception("the blast radius of version %s could not be computed", candidate.pk)
        return Ahead(
            differences=changed, problem="It could not be computed; the server's log has the details."
        )


def _ahead(radius: BlastRadius, changed: tuple[Difference, ...]) -> Ahead:
    return Ahead(
        headline=headline(radius),
        basis=_BASES[radius.basis],
        per=radius.week.span.words,
        owner=radius.workload.owner.name,
        endpoints=tuple(endpoint_row(each) for each in radius.endpoints[:_ENDPOINTS]),
        more=max(0, len(radius.endpoints) - _ENDPOINTS),
        asked=tuple(
            (model, _share(bounds, radius.whole.tasks)) for model, bounds in radius.whole.asked.items()
        ),
        differing=percent(radius.differing.share) if radius.differing else "not known yet",
        latency=projected_latency(radius).sentence if radius.endpoints else "",
        unknown=tuple(unknowns(radius)),
        notices=tuple(radius.notices),
        differences=changed,
    )


def _share(bounds: Bounds, of: float) -> str:
    low, high = percent(bounds.low / of), percent(bounds.high / of)
    if low == high:
        return low
    expected = "" if bounds.expected is None else f", {percent(bounds.expected / of)} expected"
    return f"{low} to {high}{expected}"


def realised_of(rollout: Rollout) -> list[str]:
    """Describe what a completed rollout did afterwards; empty for other rollouts."""
    try:
        found = realised(rollout, clock.now())
        return [] if found is None else realised_sentences(found, float(rollout.workload.quality_bar))
    except Exception:
        log.exception("what rollout %s realised could not be computed", rollout.pk)
        return ["It could not be computed; the server's log has the details."]


@dataclass(frozen=True, slots=True)
class EndedRollout:
    """A rollout that has ended: what it saved, or why it went back."""

    rollout: Rollout
    sentence: str


def stories_of(rollouts: Sequence[Rollout]) -> list[EndedRollout]:
    """Return what each saved, or why it went back, in seven queries for all."""
    try:
        found = read_realised(rollouts, clock.now())
    except Exception:
        log.exception(
            "what these rollouts saved could not be read: %s", ", ".join(str(each.pk) for each in rollouts)
        )
        return [EndedRollout(each, _reason(each) or _UNKNOWN) for each in rollouts]
    return [EndedRollout(each, _reason(each) or _saved(each, found.get(each.pk))) for each in rollouts]


_UNKNOWN = "Its saving could not be computed; the server's log has the details."


def _reason(rollout: Rollout) -> str:
    """Return why a rollout went back; "" for a completed one."""
    return "" if rollout.state == State.COMPLETED else rollout.rollback_reason or "No reason was recorded."


def _saved(rollout: Rollout, computed: Callable[[], Realised] | None) -> str:
    if computed is None:
        return "It has just completed; its saving is not known yet."
    try:
        found = computed()
    except Exception:
        log.exception("what rollout %s saved could not be computed", rollout.pk)
        return _UNKNOWN
    return " ".join([*while_it_ran(found), saved_since(found)])
