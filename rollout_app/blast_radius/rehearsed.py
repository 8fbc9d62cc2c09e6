"""What the routers reported about a rollout's shadow stage and its mirror, by endpoint and rule. Reads only."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import BigIntegerField, QuerySet, Sum
from django.db.models.expressions import RawSQL

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
NEWEST = timedelta(days=7)
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
        for name in _ENDS if mirror else ():
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
    if rollout.stages[0]["mode"] != "shadow":
        return {}
    found: dict[tuple[str, str], RehearsedRoute] = defaultdict(RehearsedRoute)
    first, last = minute_totals.stamped_in(rollout, 0)
    rows = _rows(rollout, first).filter(stage=0, **({"minute__lte": last} if last else {}))
    for endpoint, rule, shadow, mirror in _newest(
        rows.exclude(shadow={}, mirror={}), "endpoint", "rule", "shadow", "mirror"
    ):
        if shadow or mirror:
            found[endpoint, rule].add(shadow or {}, mirror or {})
    return {key: route for key, route in found.items() if route.decisions or any(route.mirror.values())}


def differing_tasks(rollout: Rollout, now: datetime) -> dict[str, DifferingShare]:
    """Return differing tasks by endpoint, over its newest seven days: as long as the time from which the
    traffic is taken. Reading all minutes of a long rollout would take too long.
    """
    first, last = minute_totals.stamped(rollout)
    newest = min(last or rollout.ended_at or now, now)
    rows = _rows(rollout, first).filter(differing_known__gt=0, minute__gt=newest - NEWEST)
    sums = rows.order_by().values_list("endpoint").annotate(known=Sum("differing_known"), n=Sum(_differing()))
    return {endpoint: DifferingShare(int(known), int(differing)) for endpoint, known, differing in sums}


def _differing() -> RawSQL:
    """Return the differing tasks of a row, summed by the database: Python would take 6 µs to read each row."""
    table = OutcomeBucket._meta.db_table
    if connection.vendor == "sqlite":
        pairs = f"SELECT SUM(json_extract(value, '$[0]')) FROM json_each({table}.differing)"  # noqa: S608 — our own name
    else:
        pairs = f"SELECT SUM((value->>0)::bigint) FROM jsonb_each({table}.differing::jsonb)"  # noqa: S608 — as above
    return RawSQL(f"COALESCE(({pairs}), 0)", (), BigIntegerField())  # noqa: S611 — as above  # nosec B611


def _newest(rows: QuerySet[OutcomeBucket], *columns: str) -> Iterator[tuple[Any, ...]]:
    return rows.order_by("-minute").values_list(*columns)[:MOST_ROWS].iterator(chunk_size=2_000)


def _rows(rollout: Rollout, first: datetime | None) -> QuerySet[OutcomeBucket]:
    """Return the rollout's rows by the index that starts with environment, workload and minute.

    `first`: the first minute that a router stamped. In a replay or with a wrong clock it is before the start.
    """
    place = {"environment": rollout.environment_id, "workload": rollout.workload_id}
    known = [moment for moment in (rollout.started_at, first) if moment is not None]
    rows = OutcomeBucket.objects.filter(**place, rollout=str(rollout.pk))
    return rows.filter(minute__gte=min(known).replace(second=0, microsecond=0)) if known else rows.none()
