"""Sums of the outcomes by hour and by day, so that a review of 90 days reads a few hundred rows.

    OutcomeBucket (by minute) ─▶ HourOutcomes ─▶ DayOutcomes ─▶ RunningOutcomes (all days up to and including one)

Everything here can be computed again from the stored outcomes, by `rollups.roll_up` or on demand by `manage.py
rollups`. Money is integer nano-USD, counts are of tasks.
"""

from django.db import models

from controlplane.access.models import Team
from policies_app.models import Environment, Workload
from rollout_app.json_text import TextJSON


class HourState(models.Model):
    """Whether an hour of a workload is rolled up: `rolled` is the value of `changes` that its sums cover."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+", db_index=False)
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+", db_index=False)
    hour = models.DateTimeField()
    changes = models.BigIntegerField(default=1)  # incremented by each commit of outcomes of that hour
    rolled = models.BigIntegerField(default=0)
    final = models.BooleanField(default=False)  # rolled up after the hour was over, including latencies

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "workload", "hour"], name="hour_state_once")
        ]
        indexes = [
            models.Index(
                fields=["hour"],
                condition=~models.Q(changes=models.F("rolled")) | models.Q(final=False),
                name="hours_to_roll_up",
            )
        ]

    def __str__(self) -> str:
        return f"{self.workload_id} {self.hour:%Y-%m-%d %H}:00 {self.rolled} of {self.changes}"


class DayState(models.Model):
    """A past day that was rolled up. Its sums are valid unless one of its hours has changed since."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+", db_index=False)
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+", db_index=False)
    day = models.DateField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "workload", "day"], name="day_state_once")
        ]

    def __str__(self) -> str:
        return f"{self.workload_id} {self.day}"


class RunningState(models.Model):
    """The day up to which a workload's running sums are valid."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+", db_index=False)
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+")
    valid_to = models.DateField()
    rolled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "workload"], name="running_state_once")]

    def __str__(self) -> str:
        return f"{self.workload_id} up to {self.valid_to}"


class SummedOutcomes(models.Model):
    """Sums of outcomes. `graded_*` covers tasks whose cost and grade are both known."""

    tasks = models.BigIntegerField(default=0)
    successes = models.BigIntegerField(default=0)
    failures = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    escalations = models.BigIntegerField(default=0)
    fallbacks = models.BigIntegerField(default=0)
    retries = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    cost_n = models.BigIntegerField(default=0)
    cost_sum = models.BigIntegerField(default=0)
    cost_sum_sq = models.FloatField(default=0)
    graded_n = models.BigIntegerField(default=0)
    graded_successes = models.BigIntegerField(default=0)
    graded_sum = models.BigIntegerField(default=0)
    graded_sum_sq = models.FloatField(default=0)
    graded_on_success = models.BigIntegerField(default=0)
    quality_n = models.BigIntegerField(default=0)
    quality_sum = models.FloatField(default=0)
    confidence_n = models.BigIntegerField(default=0)
    confidence_sum = models.FloatField(default=0)
    mirrored = models.BigIntegerField(default=0)  # tasks that both arms ran
    mirror_cost = models.BigIntegerField(default=0)  # of the second run, which served nobody

    class Meta:
        abstract = True


class RouteOutcomes(SummedOutcomes):
    """Sums by route, the most detailed breakdown of the review."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+", db_index=False)
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+", db_index=False)
    rollout = models.CharField(max_length=36, blank=True, default="")  # empty outside a rollout
    stage = models.SmallIntegerField(default=-1)
    arm = models.CharField(max_length=9)
    version = models.PositiveIntegerField()
    endpoint = models.CharField(max_length=200, blank=True, default="")
    rule = models.CharField(max_length=120, blank=True, default="")
    model = models.CharField(max_length=120, blank=True, default="")

    class Meta:
        abstract = True


class HourOutcomes(RouteOutcomes):
    """One hour of one route. Kept as long as the outcomes themselves."""

    hour = models.DateTimeField()
    # {"zero": 3, "counts": {"301": 80}}: OpenTelemetry's exponential histogram of scale 4, in milliseconds.
    # Filled when the hour is over.
    latency_histogram = TextJSON(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=["environment", "workload", "hour"], name="hour_outcomes_by_hour"),
            models.Index(fields=["hour"], name="hour_outcomes_to_prune"),
        ]

    def __str__(self) -> str:
        return f"{self.workload_id} {self.arm} {self.endpoint} {self.hour:%Y-%m-%d %H}:00"


class DayOutcomes(RouteOutcomes):
    """One day (UTC) of one route."""

    day = models.DateField()

    class Meta:
        indexes = [
            models.Index(fields=["environment", "workload", "day"], name="day_outcomes_by_day"),
            models.Index(fields=["day"], name="day_outcomes_to_prune"),
        ]

    def __str__(self) -> str:
        return f"{self.workload_id} {self.arm} {self.endpoint} {self.day}"


class DayLatency(models.Model):
    """Latencies of one past day and endpoint."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+", db_index=False)
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+", db_index=False)
    day = models.DateField()
    endpoint = models.CharField(max_length=200, blank=True, default="")
    histogram = TextJSON(default=dict)  # like `HourOutcomes.latency_histogram`

    class Meta:
        indexes = [models.Index(fields=["environment", "workload", "day"], name="day_latency_by_day")]

    def __str__(self) -> str:
        return f"{self.workload_id} {self.endpoint} {self.day}"


class RunningOutcomes(SummedOutcomes):
    """Sums of all days up to and including `day`, by endpoint. Any span of days is the difference of two rows.

    A workload has rows for every day from its first one on, so a page over many workloads can query a few exact days.
    """

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+", db_index=False)
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+", db_index=False)
    day = models.DateField()
    endpoint = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "day", "workload", "endpoint"], name="running_outcomes_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.workload_id} {self.endpoint} up to {self.day}"


class OwnerDay(SummedOutcomes):
    """One day of all workloads that a team owned when the day was rolled up."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+", db_index=False)
    owner = models.ForeignKey(Team, models.CASCADE, related_name="+")
    day = models.DateField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "day", "owner"], name="owner_day_once"),
        ]

    def __str__(self) -> str:
        return f"{self.owner_id} {self.day}"
