"""Prometheus metrics: rollouts by state and hold, rollbacks, and how late the engine is."""

from collections.abc import Iterable
from itertools import product

from django.db.models import Count, Min
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from controlplane.core import clock
from controlplane.core.figures import DatabaseFigures
from policies_app.models import Environment
from rollout_app.engine.states import ACTIVE, ENDED, Event, State
from rollout_app.models import Rollout, Transition


class RolloutFigures(DatabaseFigures):
    def read(self) -> list[Metric]:
        return [_by_state(), _held(), _rolled_back(), _overdue()]


def _by_state() -> Metric:
    family = GaugeMetricFamily(
        "pointsman_rollouts", "Rollouts that have not ended, by state", labels=["environment", "state"]
    )
    rows = Rollout.objects.exclude(state__in=ENDED).order_by().values_list("environment__name", "state")
    return _filled(family, rows.annotate(Count("pk")))


def _held() -> Metric:
    family = GaugeMetricFamily(
        "pointsman_rollouts_held", "Running rollouts by what holds them", labels=["environment", "hold_code"]
    )
    held = Rollout.objects.filter(state=State.RUNNING).exclude(hold_code="").order_by()
    return _filled(family, held.values_list("environment__name", "hold_code").annotate(Count("pk")))


def _rolled_back() -> Metric:
    family = CounterMetricFamily(
        "pointsman_rollbacks",
        "Rollouts rolled back; by: system (on evidence), user or key",
        labels=["environment", "by"],
    )
    back = Transition.objects.filter(event__in=[Event.ROLL_BACK, Event.ABORT]).order_by()
    rows = back.values_list("rollout__environment__name", "actor_kind").annotate(Count("pk"))
    # Without a 0 before it, the first rollback begins a series at 1. `increase()` is then 0, and no alert fires.
    names = Environment.objects.values_list("name", flat=True)
    counted = dict.fromkeys(product(names, ("system", "user", "key")), 0)
    counted |= {(environment, by): number for environment, by, number in rows}
    return _filled(family, ((*labels, number) for labels, number in counted.items()))


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[tuple[str, str, int]]) -> Metric:
    for environment, label, count in rows:
        family.add_metric([environment, label], count)
    return family


def _overdue() -> Metric:
    """How long the longest waiting evaluation is overdue. A running sweep keeps this within seconds."""
    now = clock.now()
    due = Rollout.objects.filter(state__in=ACTIVE, wake_at__lt=now).aggregate(Min("wake_at"))["wake_at__min"]
    return GaugeMetricFamily(
        "pointsman_evaluation_overdue_seconds",
        "How long the longest waiting evaluation has been due; 0: none is due",
        value=(now - due).total_seconds() if due else 0.0,
    )
