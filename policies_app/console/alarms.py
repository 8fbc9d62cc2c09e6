"""What is unusual now and concerns everybody: pins, change freezes, an engine that does not work. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.core import clock, heartbeats
from policies_app.models import Assignment, Environment


@dataclass(frozen=True, slots=True)
class Alarms:
    """`engine_age`: seconds since the last sweep over all rollouts, where that is too long; None: it works."""

    pins: list[Assignment]
    frozen: list[Environment]
    planned: list[Environment]
    engine_age: float | None
    engine_unknown: bool


def alarms(environments: Sequence[Environment]) -> Alarms:
    now = clock.now()
    pins = Assignment.objects.filter(environment__in=environments).exclude(pin_model="").defer("fragment")
    age = heartbeats.engine_age()
    return Alarms(
        pins=list(pins.select_related("environment", "workload").order_by("workload__name")[:20]),
        frozen=[each for each in environments if each.is_frozen(now)],
        planned=[e for e in environments if e.frozen_until and e.frozen_until > now and not e.is_frozen(now)],
        engine_age=age if age is not None and age > heartbeats.DEAD_AFTER_S else None,
        engine_unknown=age is None,
    )
