"""Project what a candidate in shadow would cost including the calls after a first answer. Reads only."""

from uuid import UUID

from policies_app.catalogue.usage import models_of
from policies_app.models import Model
from rollout_app.blast_radius.projection import PolicyShape
from rollout_app.blast_radius.radius import radius_of
from rollout_app.engine.evidence import ShadowSums
from rollout_app.engine.guarded import for_display
from rollout_app.engine.shadow import PRICED_SHARE, SecondStageCosts, has_whole_costs
from rollout_app.models import Rollout

_UNKNOWN = SecondStageCosts()


def second_stage_costs(rollout: UUID, shadow: ShadowSums) -> SecondStageCosts | None:
    """Return bounds (`blast_radius.projection`); None if there are no second stages or routers report the whole
    cost.
    """
    if has_whole_costs(shadow):
        return None
    found = Rollout.objects.select_related("environment", "workload", "baseline", "candidate").get(pk=rollout)
    if PolicyShape.of(found.candidate.document).escalates_to is None:
        return None
    return for_display("the cost with second stages", lambda: _projected(found), _UNKNOWN)


def unpriced_models(rollout: UUID) -> tuple[str, ...] | None:
    """Return the models of both policies whose price is not known, for the reason of a hold; None: unknown."""
    return for_display("the models without prices", lambda: _unpriced(rollout), None)


def _unpriced(rollout: UUID) -> tuple[str, ...]:
    found = Rollout.objects.select_related("baseline", "candidate").get(pk=rollout)
    names = models_of(found.baseline.document) | models_of(found.candidate.document)
    priced = Model.objects.filter(
        name__in=names, input_nusd_per_mtok__isnull=False, output_nusd_per_mtok__isnull=False
    )
    return tuple(sorted(names - set(priced.values_list("name", flat=True))))


def _projected(rollout: Rollout) -> SecondStageCosts:
    whole = radius_of(rollout).whole
    if whole.cost <= 0 or whole.covered < PRICED_SHARE * whole.tasks:
        return _UNKNOWN
    low, high, expected = whole.change
    return SecondStageCosts(
        low / whole.cost, high / whole.cost, None if expected is None else expected / whole.cost
    )
