"""Models of how an assignment moves (plans, rollouts, transitions) and of what routers report (outcomes)."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from controlplane.core.ids import uuid7
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app.engine.states import ACTIVE, State
from rollout_app.json_text import TextJSON


class Plan(models.Model):
    """A saved list of stages. A rollout copies it, so editing a plan does not affect rollouts under way."""

    name = models.SlugField(max_length=64, unique=True)
    description = models.CharField(max_length=200, blank=True, default="")
    stages = models.JSONField()  # [{"mode", "share_pcm", "min_minutes", "min_tasks", "max_hours", …}]
    version = models.PositiveIntegerField(default=1)  # for If-Match
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class GuardrailOverride(models.Model):
    """A workload's own margin for a standard guardrail, or a custom guardrail with an absolute bound."""

    workload = models.ForeignKey(Workload, models.CASCADE, related_name="guardrails")
    metric = models.CharField(max_length=32)  # `guardrails.METRICS`
    enabled = models.BooleanField(default=True)
    margin = models.FloatField(null=True, blank=True)  # share (0.02 = 2 points) or ratio (0.10 = 10 %)
    weight = models.FloatField(null=True, blank=True)
    bound = models.FloatField(null=True, blank=True)  # if set: absolute, judged without the baseline
    version = models.PositiveIntegerField(default=1)  # for If-Match

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workload", "metric"], condition=Q(bound__isnull=True), name="one_margin_per_metric"
            ),
            models.UniqueConstraint(
                fields=["workload", "metric"], condition=Q(bound__isnull=False), name="one_bound_per_metric"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.workload.name}: {self.metric}"


class Rollout(models.Model):
    """The guarded move of an assignment from baseline to candidate. Only `actions` writes it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    environment = models.ForeignKey(Environment, models.PROTECT, related_name="rollouts")
    workload = models.ForeignKey(Workload, models.PROTECT, related_name="rollouts")
    # PROTECT and not null, so that the version to go back to always exists.
    baseline = models.ForeignKey(PolicyVersion, models.PROTECT, related_name="+")
    candidate = models.ForeignKey(PolicyVersion, models.PROTECT, related_name="rollouts")
    plan_name = models.CharField(max_length=64)
    stages = models.JSONField()  # the plan's stages, copied
    # The judging criteria, fixed at the proposal and covered by every approval: margins and weights, and the
    # workload's unit, bar, signal, lag and tolerance (`terms`).
    guardrails = models.JSONField(default=list)
    terms = models.JSONField(default=dict)
    # Whether a second person must approve. Set at the proposal, never reset.
    four_eyes = models.BooleanField(default=False)
    # Ids of everyone who proposed or amended it; null for a key without a person. Entries are never removed.
    contributors = models.JSONField(default=list)
    salt = models.CharField(max_length=64)
    state = models.CharField(max_length=20, choices=[(s.value, s.value) for s in State], default=State.DRAFT)
    stage = models.PositiveSmallIntegerField(default=0)
    version = models.PositiveIntegerField(default=1)  # incremented by every transition; for compare-and-swap
    reason = models.TextField()  # of the proposal
    proposer_label = models.CharField(max_length=200)
    proposer_user_id = models.CharField(max_length=64, null=True, blank=True)  # noqa: DJ001 — null: no person
    scheduled_for = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    stage_entered_at = models.DateTimeField(null=True, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    # Seconds of earlier pauses in this stage, which do not count towards its time.
    paused_s = models.FloatField(default=0)
    rolling_back_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    # The result of the last evaluation. Shown on the page, never used for a decision.
    hold_code = models.CharField(max_length=40, blank=True, default="")
    hold_sentence = models.TextField(blank=True, default="")
    outlook = models.TextField(blank=True, default="")  # what would let it advance
    evaluated_at = models.DateTimeField(null=True, blank=True)
    # When the sweep evaluates it even without new outcomes; null: now.
    wake_at = models.DateTimeField(null=True, blank=True)
    rollback_reason = models.TextField(blank=True, default="")
    rollback_revision = models.BigIntegerField(null=True, blank=True)  # routers confirm that they applied it
    readback = models.JSONField(default=dict, blank=True)  # {"confirmed": 7, "of": 9, "stragglers": […]}
    # Measured at the start, and again until there are enough outcomes: p_ref, v_ref, deff, tail edges, cost cap,
    # number of outcomes.
    reference = models.JSONField(default=dict, blank=True)
    # The engine's sums over closed windows, so that an evaluation only processes what is new.
    evidence = TextJSON(default=dict, blank=True)
    # Incremented with `evidence`; for an evaluation's compare-and-swap.
    evaluations = models.PositiveIntegerField(default=0)
    reverts = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="reverted_by")

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "workload"],
                condition=Q(state__in=sorted(s.value for s in ACTIVE)),
                name="one_active_rollout",
            ),
        ]
        indexes = [models.Index(fields=["state"])]

    def __str__(self) -> str:
        return f"{self.workload.name} v{self.baseline.number} → v{self.candidate.number}"


class Approval(models.Model):
    """One person's approval. `binding` hashes what was approved, so any later change voids it."""

    rollout = models.ForeignKey(Rollout, models.CASCADE, related_name="approvals")
    # Null: the start; otherwise entering that stage.
    stage = models.PositiveSmallIntegerField(null=True, blank=True)
    binding = models.CharField(max_length=64)
    approver_label = models.CharField(max_length=200)
    approver_user_id = models.CharField(max_length=64)
    reason = models.TextField(blank=True, default="")
    at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)  # when the approver withdrew it

    def __str__(self) -> str:
        return f"{self.approver_label} approves {self.rollout}"


class Transition(models.Model):
    """One change of state or stage, numbered without gaps within its rollout."""

    rollout = models.ForeignKey(Rollout, models.CASCADE, related_name="transitions")
    sequence = models.PositiveIntegerField()
    event = models.CharField(max_length=24)
    before_state = models.CharField(max_length=20)
    before_stage = models.PositiveSmallIntegerField()
    after_state = models.CharField(max_length=20)
    after_stage = models.PositiveSmallIntegerField()
    reason = models.TextField()
    actor_kind = models.CharField(max_length=8)
    actor_label = models.CharField(max_length=200)
    revision = models.BigIntegerField(null=True, blank=True)  # the snapshot revision that it created, if any
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["sequence"]
        constraints = [models.UniqueConstraint(fields=["rollout", "sequence"], name="transition_once")]

    def __str__(self) -> str:
        before, after = (self.before_state, self.before_stage), (self.after_state, self.after_stage)
        return f"{self.sequence}. {'/'.join(map(str, before))} → {'/'.join(map(str, after))}"


class VerdictRecord(models.Model):
    """The verdict on one guardrail at one evaluation, with all that is needed to compute it again."""

    # `verdict_once` starts with the rollout; a separate index would only slow down writes.
    rollout = models.ForeignKey(Rollout, models.CASCADE, related_name="verdicts", db_index=False)
    stage = models.PositiveSmallIntegerField()
    # The number of the evaluation. Stored if a verdict changed or the evaluation moved the rollout.
    evaluation = models.PositiveIntegerField()
    guardrail = models.CharField(max_length=64)
    verdict = models.CharField(max_length=12)  # pass, fail, inconclusive, no_data
    data = TextJSON()  # n, x, sums, estimate, interval, ln E of harm and safety, margin, range of windows
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-evaluation", "guardrail"]
        constraints = [
            models.UniqueConstraint(fields=["rollout", "evaluation", "guardrail"], name="verdict_once"),
        ]

    def __str__(self) -> str:
        return f"{self.guardrail}: {self.verdict}"


class MinuteTotals(models.Model):
    """Sums of one key and minute. Counts are of tasks: a task with two retries counts as one in `retries`.

    Money is exact, in integer nano-USD. Sums of squares are floats. Histograms are OpenTelemetry exponential
    histograms of scale 4: {"zero": 3, "counts": {"301": 80}}.
    """

    minute = models.DateTimeField()
    tasks = models.BigIntegerField(default=0)
    successes = models.BigIntegerField(default=0)
    failures = models.BigIntegerField(default=0)
    ungraded = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    escalations = models.BigIntegerField(default=0)
    fallbacks = models.BigIntegerField(default=0)
    retries = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    quality_n = models.BigIntegerField(default=0)
    quality_sum = models.FloatField(default=0)
    quality_sum_sq = models.FloatField(default=0)
    confidence_n = models.BigIntegerField(default=0)
    confidence_sum = models.FloatField(default=0)
    confidence_sum_sq = models.FloatField(default=0)
    cost_n = models.BigIntegerField(default=0)
    cost_sum = models.BigIntegerField(default=0)  # nano-USD, all attempts
    cost_sum_sq = models.FloatField(default=0)
    cost_on_success = models.BigIntegerField(default=0)  # of the tasks that succeeded
    capped_sum = models.BigIntegerField(default=0)  # each task's cost capped at the rollout's cost cap
    capped_sum_sq = models.FloatField(default=0)
    capped_on_success = models.BigIntegerField(default=0)
    # The same over tasks whose cost and grade are both known; cost per success is computed over these.
    graded_n = models.BigIntegerField(default=0)
    graded_successes = models.BigIntegerField(default=0)
    graded_sum = models.BigIntegerField(default=0)
    graded_sum_sq = models.FloatField(default=0)
    graded_on_success = models.BigIntegerField(default=0)
    graded_capped_sum = models.BigIntegerField(default=0)
    graded_capped_sum_sq = models.FloatField(default=0)
    graded_capped_on_success = models.BigIntegerField(default=0)
    # Tasks of routers that report which tasks differ between the policies, and of routers that count their
    # decisions.
    differing_known = models.BigIntegerField(default=0)
    tracked = models.BigIntegerField(default=0)
    cost_histogram = models.JSONField(default=dict)
    latency_histogram = models.JSONField(default=dict)  # milliseconds
    groups = models.JSONField(default=dict)  # {"0"…"31": [tasks, failures]} by bucket(salt, unit) mod 32
    tasks_by_model = models.JSONField(default=dict)  # {alias: tasks that used the model}
    errors_by_kind = models.JSONField(default=dict)
    shadow = models.JSONField(default=dict)  # see the protocol; counts and nano-USD
    mirror = models.JSONField(default=dict)
    differing = TextJSON(default=dict)  # {route pair: figures in the order of `aggregate.SLICE`}

    class Meta:
        abstract = True


class OutcomeBucket(MinuteTotals):
    """One minute of one route. The review breaks these down by endpoint, rule and model. Pruned by age."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+")
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+")
    # Empty and -1 outside a rollout: NULLs would never conflict in the unique key that upserts rely on.
    rollout = models.CharField(max_length=36, blank=True, default="")
    stage = models.SmallIntegerField(default=-1)
    arm = models.CharField(max_length=9)  # baseline, candidate
    version = models.PositiveIntegerField()  # the policy version's number
    endpoint = models.CharField(max_length=200, blank=True, default="")
    rule = models.CharField(max_length=120, blank=True, default="")
    model = models.CharField(max_length=120, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "environment", "workload", "minute", "rollout", "stage", "arm", "version",
                    "endpoint", "rule", "model",
                ],
                name="outcome_bucket_once",
            ),
        ]  # fmt: skip
        indexes = [models.Index(fields=["minute"])]

    def __str__(self) -> str:
        return f"{self.workload_id} {self.arm} {self.endpoint} {self.minute:%H:%M}"


class ArmTotals(MinuteTotals):
    """One minute of one arm over all its routes. Guardrails are judged on these, without scanning buckets."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+")
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+")
    rollout = models.CharField(max_length=36, blank=True, default="")
    stage = models.SmallIntegerField(default=-1)
    arm = models.CharField(max_length=9)
    version = models.PositiveIntegerField()
    # Decisions of this minute, reported or not, where routers count them; decisions on which the policies
    # differ; and decisions for which that is known.
    decided = models.BigIntegerField(default=0)
    decided_differing = models.BigIntegerField(default=0)
    decided_differing_known = models.BigIntegerField(default=0)
    # {endpoint: figures in the order of `aggregate.SLICE`}; only within a rollout.
    endpoints = TextJSON(default=dict)
    cells = TextJSON(default=dict)  # {"0"…"1023": [tasks, failures]}, for sticky units
    # When the minute's first batch arrived, by the database's clock. Distinguishes a quiet workload from one
    # whose routers stamp their minutes with a different clock.
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "workload", "rollout", "stage", "arm", "version", "minute"],
                name="arm_totals_once",
            ),
        ]
        # For evaluations, over rows of rollouts only: the newest minutes of a stage, and the newest arrival.
        indexes = [
            models.Index(
                fields=["rollout", "stage", "minute"], condition=~Q(rollout=""), name="arm_totals_by_stage"
            ),
            models.Index(
                fields=["rollout", "received_at"], condition=~Q(rollout=""), name="arm_totals_by_arrival"
            ),
        ]
        verbose_name_plural = "arm totals"

    def __str__(self) -> str:
        return f"{self.workload_id} {self.arm} {self.minute:%H:%M}"

    @classmethod
    def of_rollout(cls, rollout: "Rollout") -> "models.QuerySet[ArmTotals]":
        """Return its rows by the columns that the key starts with: by `rollout` alone, SQLite reads the whole table."""
        place = {"environment": rollout.environment_id, "workload": rollout.workload_id}
        return cls.objects.filter(**place, rollout=str(rollout.pk))


class AcceptedBatch(models.Model):
    """A batch or single event that was counted. A repeated id gets the same answer and is not counted again.

    Kept longer than the oldest minute that ingest accepts, so that a repeated batch always finds the first one.
    """

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+")
    batch = models.CharField(max_length=64)  # `b:<uuid>` or `e:<event id>`
    accepted = models.PositiveIntegerField()  # the number in the answer
    at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "batch"], name="batch_once")]

    def __str__(self) -> str:
        return self.batch


class DeferredGroup(models.Model):
    """Batches accepted under load that are not in the totals yet. The process that counts them deletes the row."""

    body = models.BinaryField()  # what they add to the totals: see `outcomes.store`
    # When it was stored; for an unreadable one, when to try again.
    at = models.DateTimeField(db_default=Now(), db_index=True)

    def __str__(self) -> str:
        return f"group {self.pk}"


class Feedback(models.Model):
    """A later grade of a task. One per decision and kind; further ones are ignored."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+")
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+")
    decision_sha256 = models.CharField(max_length=64)
    kind = models.CharField(max_length=16)  # human_review, satisfaction, downstream
    success = models.BooleanField(null=True)
    score = models.FloatField(null=True)
    rollout = models.CharField(max_length=36, blank=True, default="")
    arm = models.CharField(max_length=9)
    version = models.PositiveIntegerField()
    endpoint = models.CharField(max_length=200, blank=True, default="")
    rule = models.CharField(max_length=120, blank=True, default="")
    model = models.CharField(max_length=120, blank=True, default="")
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "decision_sha256", "kind"], name="feedback_once"),
        ]
        indexes = [models.Index(fields=["workload", "at"])]

    def __str__(self) -> str:
        return f"{self.kind} on {self.decision_sha256[:8]}"


class SampledInput(models.Model):
    """The inputs of one request as figures and names, from a router that opted in. `outcomes.sampled_inputs`."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="+")
    workload = models.ForeignKey(Workload, models.CASCADE, related_name="+")
    sample = models.CharField(max_length=62)  # the router's name for it: one sent twice is stored once
    request = models.JSONField()
    at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "workload", "sample"], name="sample_once"),
        ]

    def __str__(self) -> str:
        return self.sample
