"""The blast radius of a candidate: what is known in advance about the tasks that it would move. Reads only.

The traffic is that of the last seven days. After a shadow stage, the routers have reported what the candidate would
choose. Before that, it is derived from both documents as far as possible (`routing`), and the rest is reported as
unknown.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from controlplane.core import clock
from policies_app.actions import served_assignment
from policies_app.catalogue.usage import ModelNotice, model_notices, models_of
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app.blast_radius.projection import Cell, Flow, PolicyShape, Projection, Projector
from rollout_app.blast_radius.rehearsed import DifferingShare, RehearsedRoute, differing_tasks, shadow_routes
from rollout_app.blast_radius.routing import choices, everything, facts_of
from rollout_app.blast_radius.week import CellKey, Week, read_week, seen_escalations
from rollout_app.engine.diagnosis.figures import NOTHING
from rollout_app.engine.states import ENDED, State
from rollout_app.models import Rollout, Transition

BY_SHADOW, BY_DOCUMENTS, BY_NOTHING = "shadow", "documents", "nothing"


@dataclass(frozen=True, slots=True)
class EndpointRadius:
    """One endpoint, with counts and costs per day; for traffic of less than a day, not scaled (`Week.span`).

    `traffic`: all tasks, `projection`: those with a known projection.
    """

    endpoint: str
    traffic: float
    projection: Projection
    differing: DifferingShare | None


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """The blast radius. `basis`: what the moves are derived from. `rehearsed`: the shadow stage by endpoint and rule.

    `pinned`: the model of a pin that overrides every policy; empty without one.
    """

    environment: Environment
    workload: Workload
    baseline: PolicyVersion
    candidate: PolicyVersion
    week: Week
    basis: str
    whole: Projection
    endpoints: Sequence[EndpointRadius]
    differing: DifferingShare | None
    pinned: str
    notices: Sequence[ModelNotice]
    went_back: Rollout | None = None  # the newest earlier rollout between these versions that was rolled back
    rehearsed: Mapping[tuple[str, str], RehearsedRoute] = field(default_factory=dict)

    @property
    def decisions(self) -> int:
        return sum(route.decisions for route in self.rehearsed.values())

    @property
    def unpriced_models(self) -> list[str]:
        names = models_of(self.baseline.document) | models_of(self.candidate.document)
        return sorted(names - self.week.prices.keys())


def radius_of(rollout: Rollout) -> BlastRadius:
    """Return the blast radius of a rollout as of now, or as of the moment before it moved anything."""
    now = clock.now()
    end = moved_at(rollout) or now
    places = (rollout.environment, rollout.workload, rollout.baseline, rollout.candidate)
    return blast_radius(*places, end, now, shadow_routes(rollout), differing_tasks(rollout, now))


def moved_at(rollout: Rollout) -> datetime | None:
    """Return when the candidate first got traffic; None: it has had none."""
    return moves_of([rollout])[rollout.pk]


def moves_of(rollouts: Sequence[Rollout]) -> dict[UUID, datetime | None]:
    """Return `moved_at` for several rollouts, in at most one query."""
    shadowed = [each.pk for each in rollouts if each.started_at and each.stages[0]["mode"] == "shadow"]
    later = Transition.objects.filter(rollout__in=shadowed, after_stage__gt=0).order_by("-sequence")
    moves = dict(later.values_list("rollout_id", "at")) if shadowed else {}
    return {each.pk: _moved_at(each, moves) for each in rollouts}


def _moved_at(rollout: Rollout, moves: Mapping[UUID, datetime]) -> datetime | None:
    """`moves`: the first move out of the shadow stage, by rollout."""
    if rollout.started_at is None or rollout.stages[0]["mode"] != "shadow":
        return rollout.started_at
    return moves.get(rollout.pk) or (rollout.ended_at if State(rollout.state) in ENDED else None)


def radius_of_candidate(
    environment: Environment, workload: Workload, candidate: PolicyVersion
) -> BlastRadius:
    """Return the blast radius of a version that is not proposed yet. Raises `NotServed`."""
    baseline = served_assignment(environment.pk, workload.pk).baseline
    now = clock.now()
    return blast_radius(environment, workload, baseline, candidate, now, now)


def blast_radius(
    environment: Environment,
    workload: Workload,
    baseline: PolicyVersion,
    candidate: PolicyVersion,
    end: datetime,
    now: datetime,
    rehearsed: Mapping[tuple[str, str], RehearsedRoute] | None = None,
    differing: Mapping[str, DifferingShare] | None = None,
) -> BlastRadius:
    """Return what `candidate` would move of the traffic of the seven days before `end`."""
    week, shares, shape = (
        read_week(environment, workload, baseline, candidate, end),
        differing or {},
        PolicyShape.of(candidate.document),
    )
    projector = Projector(
        PolicyShape.of(baseline.document), shape, week.prices, seen_escalations(week, shape)
    )
    shadowed = {key: route for key, route in (rehearsed or {}).items() if route.decisions}
    found = (
        _shadow_flows(week.cells, shadowed, baseline, candidate)
        if shadowed
        else _document_flows(week, baseline, candidate)
    )
    flows = _a_day(found, week.traffic)
    endpoints = [
        EndpointRadius(
            name,
            tasks,
            projector.project(flow for flow in flows if flow.cell.endpoint == name),
            shares.get(name),
        )
        for name, tasks in week.traffic.items()
    ]
    return BlastRadius(
        environment=environment,
        workload=workload,
        baseline=baseline,
        candidate=candidate,
        week=week,
        basis=BY_SHADOW if shadowed else BY_DOCUMENTS if week.traffic else BY_NOTHING,
        whole=projector.project(flows),
        endpoints=sorted(endpoints, key=lambda each: (-_weight(each), each.endpoint)),
        differing=_added(shares.values()) if shares else None,
        pinned=_pin(environment, workload),
        notices=model_notices([baseline.document, candidate.document], now.date()),
        went_back=went_back(baseline, candidate, environment, end),
        rehearsed=rehearsed or {},
    )


def went_back(
    baseline: PolicyVersion, candidate: PolicyVersion, environment: Environment, before: datetime
) -> Rollout | None:
    """Return the newest rollout of this candidate against this baseline that was rolled back before a time."""
    found = Rollout.objects.filter(environment=environment, candidate=candidate, baseline=baseline)
    return found.filter(state=State.ROLLED_BACK, ended_at__lte=before).order_by("-ended_at").first()


def _weight(radius: EndpointRadius) -> float:
    change = radius.projection.change
    return max(abs(change.low), abs(change.high)) or radius.projection.moved[1]


def _added(shares: Iterable[DifferingShare]) -> DifferingShare:
    rows = list(shares)
    return DifferingShare(sum(row.known for row in rows), sum(row.differing for row in rows))


def _pin(environment: Environment, workload: Workload) -> str:
    found = environment.assignments.filter(workload=workload).values_list("pin_model", flat=True).first()
    return found or ""


# --- flows to the candidate --------------------------------------------------------------------------------


def _document_flows(week: Week, baseline: PolicyVersion, candidate: PolicyVersion) -> list[Flow]:
    """Derive the flows from the documents."""
    asked = (baseline.document, candidate.document)
    flows = []
    for (version, endpoint, rule), cell in week.cells.items():
        facts = facts_of(week.versions[version].document, rule, endpoint, asked=asked)
        found = everything(candidate.document) if facts is None else choices(candidate.document, facts)
        options = tuple(dict.fromkeys(choice.alias for choice in found))
        flows.append(Flow(cell, options, cell.whole.tasks))
    return flows


def _shadow_flows(
    cells: Mapping[CellKey, Cell],
    shadowed: Mapping[tuple[str, str], RehearsedRoute],
    baseline: PolicyVersion,
    candidate: PolicyVersion,
) -> list[Flow]:
    """Derive the flows from what the routers said the candidate would choose."""
    flows = []
    for (endpoint, rule), route in shadowed.items():
        cell = cells.get((baseline.number, endpoint, rule))
        for (served, chosen), n in route.routes.items():
            entry = baseline.document["models"].get(served, {"model": served})
            if chosen not in candidate.document["models"]:
                continue
            of = cell if cell and cell.model == entry["model"] else None
            flows.append(
                Flow(
                    of or Cell(endpoint, rule, entry["model"], entry.get("params") or {}, NOTHING, NOTHING),
                    (chosen,),
                    n,
                )
            )
    return flows


def _a_day(flows: Sequence[Flow], traffic: Mapping[str, float]) -> list[Flow]:
    """Scale the flows to the endpoints' present traffic. An endpoint without traffic has none."""
    known: dict[str, float] = defaultdict(float)
    for flow in flows:
        known[flow.cell.endpoint] += flow.tasks
    return [
        Flow(flow.cell, flow.options, flow.tasks * traffic[flow.cell.endpoint] / known[flow.cell.endpoint])
        for flow in flows
        if flow.cell.endpoint in traffic and known[flow.cell.endpoint]
    ]
