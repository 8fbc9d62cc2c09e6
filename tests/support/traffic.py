"""Outcomes as routers report them, with chosen properties: minutes of both arms with known rates."""

import random
from datetime import UTC, datetime, timedelta

from pointsman.reporting.histogram import Histogram
from rollout_app.engine.evidence import Stage
from rollout_app.models import ArmTotals, Rollout

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


class Traffic:
    """Writes consecutive minutes of a rollout, at the share of its current stage."""

    def __init__(self, rollout: Rollout, *, seed: int = 1, start: datetime = START) -> None:
        self.rollout, self.random, self.minute = rollout, random.Random(seed), start

    def before(self, tasks: int = 2_000, success: float = 0.92) -> "Traffic":
        """Write outcomes of the baseline before any rollout, so that no calibration is needed."""
        self._write("", -1, "baseline", tasks, success, cost=1_000_000, shadow={})
        return self

    def minutes(
        self,
        minutes: int = 1,
        *,
        tasks: int = 200,
        baseline: float = 0.92,
        candidate: float = 0.92,
        cost: int = 1_000_000,
        candidate_cost: int = 700_000,
    ) -> "Traffic":
        self.rollout.refresh_from_db()
        stage = Stage.from_dict(self.rollout.stages[self.rollout.stage])
        for _ in range(minutes):
            share = stage.share_pcm / 100_000
            ours = round(tasks * share)
            shadow = {}
            if stage.mode == "shadow":
                shadow = {
                    "decisions": tasks,
                    "agreed": tasks // 2,
                    "candidate_cost_nusd": tasks * candidate_cost,
                    "baseline_cost_nusd": tasks * cost,
                    "routes": {"large>small": tasks},
                }
            where = (str(self.rollout.pk), self.rollout.stage)
            self._write(*where, "baseline", tasks - ours, baseline, cost=cost, shadow=shadow)
            self._write(*where, "candidate", ours, candidate, cost=candidate_cost, shadow={})
            self.minute += timedelta(minutes=1)
        return self

    def _write(
        self,
        rollout: str,
        stage: int,
        arm: str,
        tasks: int,
        success: float,
        *,
        cost: int,
        shadow: dict[str, object],
    ) -> None:
        if not tasks:
            return
        good = sum(self.random.random() < success for _ in range(tasks))
        latency, costs = Histogram(), Histogram()
        for _ in range(tasks):
            latency.record(self.random.lognormvariate(6, 0.5))
            costs.record(cost)
        version = self.rollout.candidate if arm == "candidate" else self.rollout.baseline
        ArmTotals.objects.create(
            environment=self.rollout.environment,
            workload=self.rollout.workload,
            rollout=rollout,
            stage=stage,
            arm=arm,
            version=version.number,
            minute=self.minute,
            tasks=tasks,
            successes=good,
            failures=tasks - good,
            attempts=tasks,
            cost_n=tasks,
            cost_sum=tasks * cost,
            cost_sum_sq=float(tasks) * cost * cost,
            cost_on_success=good * cost,
            capped_sum=tasks * cost,
            capped_sum_sq=float(tasks) * cost * cost,
            capped_on_success=good * cost,
            graded_n=tasks,
            graded_successes=good,
            graded_sum=tasks * cost,
            graded_sum_sq=float(tasks) * cost * cost,
            graded_on_success=good * cost,
            graded_capped_sum=tasks * cost,
            graded_capped_sum_sq=float(tasks) * cost * cost,
            graded_capped_on_success=good * cost,
            cost_histogram=costs.as_dict(),
            latency_histogram=latency.as_dict(),
            shadow=shadow,
        )
