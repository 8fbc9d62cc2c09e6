"""Measure the baseline before a rollout: the source of its guardrails' margins, tail edges and cost caps."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from controlplane.core.bulk import stored
from pointsman.reporting.histogram import Histogram
from policies_app.models import Workload
from rollout_app.engine.calibration import calibrate
from rollout_app.engine.evidence import ArmSums, Group
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.cells import Halves
from rollout_app.engine.windows import merge_groups
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import stored_sums

DAYS = 7  # how far back to measure: a whole week covers every hour and weekday once


def reference(rollout: Rollout, now: datetime) -> Reference:
    """Measure the baseline over its last days, including this rollout's own baseline arm.

    What another success signal graded, or another unit counted together, is left out.
    """
    arm, latency, cost, groups = ArmSums(), Histogram(), Histogram(), dict[int, Group]()
    cells = CellHalves()
    for row in _rows(rollout, _since(rollout.workload, now)):
        cells.add(row["part"], stored_sums.groups(row["cells"]))
        arm += stored_sums.arm_sums(row)
        latency.merge(stored_sums.histogram(row["latency_histogram"]))
        cost.merge(stored_sums.histogram(row["cost_histogram"]))
        groups = merge_groups((groups, stored_sums.groups(row["groups"])))
    return calibrate(
        arm,
        latency=latency,
        cost=cost,
        groups=groups or None,
        unit_is_request=rollout.workload.unit == Workload.Unit.REQUEST,
        latency_tolerance_ms=rollout.workload.latency_tolerance_ms,
        mechanisms=mechanisms(rollout.baseline.document),
        candidate_mechanisms=mechanisms(rollout.candidate.document),
        cells=cells.sums or None,
    )


def _since(workload: Workload, now: datetime) -> datetime:
    """Return the first minute to measure: a week ago, or the first whole minute under the present criteria."""
    week = now - timedelta(days=DAYS)
    return week if workload.measured_since is None else max(week, workload.measured_since)


class CellHalves:
    """Tasks and failures by hash cell of the unit, in the first and second half of the measured time.

    Comparing the halves shows whether a cell's rate persists. Only then can it be predicted.
    """

    def __init__(self) -> None:
        self.sums: dict[int, Halves] = {}

    def add(self, half: int, cells: Mapping[int, Group]) -> None:
        """Add a minute's cells to half 1 or 2."""
        for cell, group in cells.items():
            n1, x1, n2, x2 = self.sums.get(cell, (0, 0, 0, 0))
            if half == 1:
                self.sums[cell] = (n1 + group.tasks, x1 + group.failures, n2, x2)
            else:
                self.sums[cell] = (n1, x1, n2 + group.tasks, x2 + group.failures)


def mechanisms(document: Mapping[str, Any]) -> frozenset[str]:
    """Return which of escalate, retry and fallback a policy uses. A mechanism is not compared with its absence."""
    found = set()
    if document.get("escalate") and document["escalate"].get("max", 1):
        found.add("escalate")
    if document.get("retry", {}).get("attempts"):
        found.add("retry")
    if _falls_back(document):
        found.add("fallback")
    return frozenset(found)


def _falls_back(document: Mapping[str, Any]) -> bool:
    """Return whether the fallback can reach another model. Every policy names one, but it may be the model already in
    use.
    """
    chosen = {document["default"], *(rule["use"] for rule in document.get("rules", ()))}
    return any({*document["fallback"]} - {alias} for alias in chosen)


def _rows(rollout: Rollout, since: datetime) -> Iterator[Mapping[str, Any]]:
    """Yield the minutes in which the rollout's baseline was served: as a baseline, or as an earlier rollout's
    candidate.
    """
    columns = (*stored_sums.FIGURES, "groups", "cells")
    statement = (  # `part`: which half of the minutes with traffic, earlier first
        f"SELECT {', '.join(columns)}, NTILE(2) OVER (ORDER BY minute) FROM {ArmTotals._meta.db_table} "  # noqa: S608 — our own names; bound values
        "WHERE environment_id = %s AND workload_id = %s AND version = %s AND minute >= %s "
        "AND (arm = 'baseline' OR rollout <> %s) ORDER BY minute"
    )
    place = (rollout.environment_id, rollout.workload_id, rollout.baseline.number)
    with connection.cursor() as cursor:
        cursor.execute(statement, [*place, stored(since), str(rollout.pk)])
        for row in cursor:
            yield dict(zip((*columns, "part"), row, strict=True))
