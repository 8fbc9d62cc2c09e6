"""Current conditions that concern everybody: pins and change freezes. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.core import clock
from policies_app.models import Assignment, Environment


@dataclass(frozen=True, slots=True)
class Alarms:
    """`planned` holds freezes that have not begun."""

    pins: list[Assignment]
    frozen: list[Environment]
    planned: list[Environment]


def alarms(environments: Sequence[Environment]) -> Alarms:
    now = clock.now()
    pins = Assignment.objects.filter(environment__in=environments).exclude(pin_model="").defer("fragment")
    return Alarms(
        pins=list(pins.select_related("environment", "workload").order_by("workload__name")[:20]),
        frozen=[each for each in environments if each.is_frozen(now)],
        planned=[e for e in environments if e.frozen_until and e.frozen_until > now and not e.is_frozen(now)],
    )
