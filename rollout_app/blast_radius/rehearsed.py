"""What the routers reported about a rollout's shadow stage and its mirror, by endpoint and rule. Reads only."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout_app.engine.evidence import MirrorSums
from rollout_app.models import OutcomeBucket, Rollout
from rollout_app.outcomes import minute_totals

_ENDS = (
    "n",
    "both",
    "only_candidate",
    "only_baseline",
    "neither",
    "candidate_cost_nusd",
    "baseline_cost_nusd",
    "failed",
    "braked",
)
MOST_ROWS = 200_000  # maximum minutes of routes to read; the newest of a longer shadow stage


@dataclass(slots=True)
class RehearsedRoute:
    """One endpoint and rule. `routes`: (served alias, candidate alias) → decisions."""

    decisions: int = 0
    agreed: int = 0
    errors: int = 0
    routes: dict[tuple[str, str], int] = field(default_factory=dict)
    mirror: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_ENDS, 0))

    def add(self, shadow: Mapping[str, Any], mirror: Mapping[str, Any]) -> None:
        self.decisions += shadow.get("decisions", 0)
        self.agreed += shadow.get("agreed", 0)
        self.errors += shadow.get("evaluation_errors", 0)
        for pair, n in (shadow.get("routes") or {}).items():
            served, _, chosen = pair.partition(">")
            self.routes[served, chosen] = self.routes.get((served, chosen), 0) + n
        for name in _ENDS:
            self.mirror[name] += mirror.get(name, 0)

    @property
    def mirrored(self) -> MirrorSums:
        return MirrorSums(**self.mirror)


@dataclass(frozen=True, slots=True)
class DifferingShare:
    """Tasks for which routers reported whether the two policies differ, and those on which they do."""

    known: int = 0
    differing: int = 0

    @property
    def share(self) -> float | None:
        return self.differing / self.known if self.known else None


def shadow_routes(rollout: Rollout) -> dict[tuple[str, str], RehearsedRoute]:
    """Return the shadow stage by (endpoint, rule); empty without one."""
    found: dict[tuple[str, str], RehearsedRoute] = defaultdict(RehearsedRoute)
    rows = _rows(rollout).filter(stage=0).exclude(shadow={}, mirror={}).order_by("-minute")
    for endpoint, rule, shadow, mirror in rows.values_list("endpoint", "rule", "shadow", "mirror")[
        :MOST_ROWS
    ].iterator(chunk_size=2_000):
        if shadow or mirror:
            found[endpoint, rule].add(shadow or {}, mirror or {})
    return {key: route for key, route in found.items() if route.decisions or any(route.mirror.values())}


def differing_tasks(rollout: Rollout) -> dict[str, DifferingShare]:
    """Return differing tasks by endpoint, over all stages in which both policies were known."""
    known: dict[str, int] = defaultdict(int)
    differing: dict[str, int] = defaultdict(int)
    rows = _rows(rollout).filter(differing_known__gt=0).order_by("-minute")
    for endpoint, of, pairs in rows.values_list("endpoint", "differing_known", "differing")[
        :MOST_ROWS
    ].iterator(chunk_size=2_000):
        known[endpoint] += of
        differing[endpoint] += sum(figures[0] for figures in pairs.values())
    return {endpoint: DifferingShare(of, differing[endpoint]) for endpoint, of in known.items()}


def _rows(rollout: Rollout) -> Any:
    """Return the rollout's rows by the index that starts with environment and workload."""
    place = {"environment": rollout.environment_id, "workload": rollout.workload_id}
    # Begin with the first minute that a router stamped: in a replay or with a wrong clock, it is before the
    # start.
    known = [
        moment for moment in (rollout.started_at, minute_totals.stamped(rollout)[0]) if moment is not None
    ]
    rows = OutcomeBucket.objects.filter(**place, rollout=str(rollout.pk))
    return rows.filter(minute__gte=min(known).replace(second=0, microsecond=0)) if known else rows.none()
