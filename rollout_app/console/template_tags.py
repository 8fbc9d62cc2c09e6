"""Template tags with which other pages show rollouts: `{% load rollouts %}`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django import template

from controlplane.web.display import money, percent
from policies_app.models import Environment, Workload
from rollout_app.console.charts import LineChart
from rollout_app.console.presenters import figure_writer, served_share
from rollout_app.console.presenters import stage_name as name_of_stage
from rollout_app.engine.guardrails import Guardrail, guardrails_for
from rollout_app.models import Rollout

register = template.Library()


@dataclass(frozen=True, slots=True)
class MarginRow:
    """A guardrail of a workload, formatted."""

    metric: str
    label: str
    limit: str
    weight: float
    own: bool  # set for this workload, not the default
    absolute: bool


@register.simple_tag
def rollouts_of(workload: Workload, environments: Iterable[Environment]) -> list[Rollout]:
    """Return the workload's latest rollouts in the environments of the page."""
    found = workload.rollouts.filter(environment__in=list(environments))
    rows = found.select_related("environment", "workload", "baseline", "candidate")
    return list(rows.defer("evidence", "baseline__canonical", "candidate__canonical")[:8])


@register.simple_tag
def margins_of(workload: Workload) -> list[MarginRow]:
    overrides = list(workload.guardrails.values("metric", "enabled", "margin", "weight", "bound"))
    own = {(override["metric"], override["bound"] is not None) for override in overrides}
    return [_margin_row(guardrail, own) for guardrail in guardrails_for(overrides)]


def _margin_row(guardrail: Guardrail, own: set[tuple[str, bool]]) -> MarginRow:
    absolute = guardrail.bound is not None
    write = figure_writer(guardrail.metric, absolute=absolute)
    limit = write(guardrail.margin if guardrail.bound is None else guardrail.bound)
    label = guardrail.metric.spec.label + (" (absolute)" if absolute else "")
    metric = guardrail.metric.value
    return MarginRow(metric, label, limit.lstrip("+"), guardrail.weight, (metric, absolute) in own, absolute)


@register.filter
def spoken(chart: LineChart) -> str:
    """Return the last value of each line, for screen readers."""
    said = [
        f"{name}: last value {_written(chart.unit, points[-1][1])}"
        for name, points in chart.lines.items()
        if points
    ]
    return "; ".join([*said, chart.threshold_name] if chart.threshold_name else said)


def _written(unit: str, value: float) -> str:
    if unit == "nusd":
        return money(value)
    return percent(value if unit == "share" else value / 100)


@register.filter
def served(rollout: Rollout) -> str:
    return served_share(rollout)


@register.filter
def stage_name(stage: Mapping[str, Any]) -> str:
    return name_of_stage(stage)
