"""Measures the baseline before a rollout: what its guardrails' margins, tails and caps are read off."""

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
from rollout_app.engine.windows import merge_groups
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import stored_sums

DAYS = 7  # how far back it is measured: a whole week has every hour and every weekday once


def reference(rollout: Rollout, now: datetime) -> Reference:
    """The baseline as its last days were, this rollout's own baseline arm included."""
    arm, latency, cost, groups = ArmSums(), Histogram(), Histogram(), dict[int, Group]()
    for row in _rows(rollout, now - timedelta(days=DAYS)):
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
    )


def _rows(rollout: Rollout, since: datetime) -> Iterator[Mapping[str, Any]]:
    """The minutes in which the rollout's baseline was served: as a baseline, or as an earlier rollout's candidate."""
    columns = (*stored_sums.FIGURES, "groups", "cells")
    statement = (
        f"SELECT {', '.join(columns)} FROM {ArmTotals._meta.db_table} "  # noqa: S608 — our own names; bound values
        "WHERE environment_id = %s AND workload_id = %s AND version = %s AND minute >= %s "
        "AND (arm = 'baseline' OR rollout <> %s) ORDER BY minute"
    )
    place = (rollout.environment_id, rollout.workload_id, rollout.baseline.number)
    with connection.cursor() as cursor:
        cursor.execute(statement, [*place, stored(since), str(rollout.pk)])
        for row in cursor:
            yield dict(zip(columns, row, strict=True))
