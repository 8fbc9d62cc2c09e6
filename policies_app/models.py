"""Tables of what can be served (workloads, models, versions) and what is served now (assignments, revisions)."""

from datetime import datetime
from typing import Any, cast

import msgspec
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from controlplane.access.models import Team
from controlplane.core.ids import uuid7
from controlplane.core.names import validate_name, validate_policy_name, validate_text

# Milliseconds. A router that does not use long polls receives a pin or a rollback only after its interval.
LEAST_POLL_INTERVAL_MS, MOST_POLL_INTERVAL_MS = 200, 300_000


def new_epoch(after: str = "") -> str:
    """Return an epoch that sorts behind `after`, also if this machine's clock is behind the one that made it."""
    epoch = uuid7().hex
    return epoch if epoch > after else f"{int(after.replace('-', ''), 16) + 1:032x}"


def default_poll_interval_ms() -> int:
    return settings.POLL_INTERVAL_MS


class Environment(models.Model):
    """A place where routers live. Its row is locked to draw the next revision, so revisions have no gaps and never
    decrease."""

    name = models.SlugField(max_length=64, unique=True)
    description = models.CharField(max_length=200, blank=True, default="")
    epoch = models.CharField(max_length=36, default=new_epoch)  # a restore from a backup starts a new one
    revision = models.BigIntegerField(default=0)
    four_eyes = models.BooleanField(default=True)  # a rollout here needs another person's approval
    # Rows from before there was a limit may be above it; `snapshots.cache` serves at most the limit.
    poll_interval_ms = models.PositiveIntegerField(
        default=default_poll_interval_ms,
        validators=[MinValueValidator(LEAST_POLL_INTERVAL_MS), MaxValueValidator(MOST_POLL_INTERVAL_MS)],
    )
    frozen_from = models.DateTimeField(null=True, blank=True)  # null: the freeze has already begun
    # No starts and no advances; rollbacks still work.
    frozen_until = models.DateTimeField(null=True, blank=True)
    freeze_reason = models.CharField(max_length=200, blank=True, default="", validators=[validate_text])
    version = models.PositiveIntegerField(default=1)  # for If-Match
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

    def is_frozen(self, now: datetime) -> bool:
        """Return whether the change freeze is in force: it has begun and is not over."""
        begun = self.frozen_from is None or self.frozen_from <= now
        return begun and self.frozen_until is not None and self.frozen_until > now


class Workload(models.Model):
    """A family of requests under one policy, with an owner and a quality bar."""

    class Difficulty(models.TextChoices):
        EASY = "easy"
        MIXED = "mixed"
        HARD = "hard"

    class Unit(models.TextChoices):
        """What is assigned to one arm as a whole: a conversation never switches models halfway."""

        REQUEST = "request"
        CONVERSATION = "conversation"
        USER = "user"
        TENANT = "tenant"

    class SuccessSignal(models.TextChoices):
        ACCURACY_CHECK = "accuracy_check"
        HUMAN_REVIEW = "human_review"
        SATISFACTION = "satisfaction"
        DOWNSTREAM = "downstream", "downstream completion"

    # Rows from before the validator may have a name that no policy can carry.
    name = models.SlugField(max_length=120, unique=True, validators=[validate_policy_name])
    description = models.CharField(max_length=400, blank=True, default="")
    task_type = models.CharField(max_length=64)
    difficulty = models.CharField(max_length=8, choices=Difficulty.choices, default=Difficulty.MIXED)
    # The share of tasks that must succeed, 0 to 1.
    quality_bar = models.DecimalField(
        max_digits=5, decimal_places=4, validators=[MinValueValidator(0), MaxValueValidator(1)]
    )
    # A slower task counts as slow. None: not declared, so a rollout measures it on its baseline.
    latency_tolerance_ms = models.PositiveIntegerField(null=True, blank=True)
    # US dollars that mirrored tasks of one rollout may cost per UTC day (shadow only). None: limited only by
    # their share.
    mirror_budget_usd = models.DecimalField(
        max_digits=12, decimal_places=2, null=True, blank=True, validators=[MinValueValidator(0)]
    )
    retryable = models.BooleanField(default=True)
    escalatable = models.BooleanField(default=True)
    batchable = models.BooleanField(default=False)
    owner = models.ForeignKey(Team, models.PROTECT, related_name="workloads")
    unit = models.CharField(max_length=16, choices=Unit.choices, default=Unit.REQUEST)
    success_signal = models.CharField(
        max_length=16, choices=SuccessSignal.choices, default=SuccessSignal.ACCURACY_CHECK
    )
    # Seconds before an outcome may be judged, because graders and users answer late.
    outcome_lag_s = models.PositiveIntegerField(default=900, validators=[MaxValueValidator(86_400)])
    # When the success signal or the unit last changed. Earlier outcomes mean something else, so rollouts do not
    # measure their baseline on them. None: never.
    measured_since = models.DateTimeField(null=True, blank=True, editable=False)
    version = models.PositiveIntegerField(default=1)  # for If-Match
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Model(models.Model):
    """A provider's model in the catalogue. Price does not imply quality, so `quality` is recorded separately."""

    name = models.CharField(max_length=120, unique=True, validators=[validate_name])  # `openai/gpt-4o-mini`
    # Nano-USD per 10⁶ tokens. Null: unknown, and everything that depends on it stays unknown.
    input_nusd_per_mtok = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    output_nusd_per_mtok = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    cache_read_nusd_per_mtok = models.BigIntegerField(
        null=True, blank=True, validators=[MinValueValidator(0)]
    )
    cache_write_nusd_per_mtok = models.BigIntegerField(
        null=True, blank=True, validators=[MinValueValidator(0)]
    )
    batch_input_nusd_per_mtok = models.BigIntegerField(
        null=True, blank=True, validators=[MinValueValidator(0)]
    )
    batch_output_nusd_per_mtok = models.BigIntegerField(
        null=True, blank=True, validators=[MinValueValidator(0)]
    )
    price_source = models.CharField(max_length=200, blank=True, default="")  # the origin of the prices
    context_window = models.PositiveIntegerField(validators=[MinValueValidator(1)])  # tokens
    retires_on = models.DateField(null=True, blank=True)  # the provider's last day for it, if announced
    quality = models.FloatField(null=True, blank=True)  # recorded share of successes, 0 to 1, if known
    enabled = models.BooleanField(default=True)
    version = models.PositiveIntegerField(default=1)  # for If-Match
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


PRICES = ("input", "output", "cache_read", "cache_write", "batch_input", "batch_output")


class ModelPrice(models.Model):
    """The history of a model's prices, each valid from `since`. `catalogue.actions` adds a row with each price
    change."""

    model = models.ForeignKey(Model, models.CASCADE, related_name="price_history")
    since = models.DateTimeField()
    prices = (
        models.JSONField()
    )  # {"input": 150000000, "cache_read": null, …}: nano-USD per 10⁶ tokens, by `PRICES`
    source = models.CharField(max_length=200, blank=True, default="")
    actor_label = models.CharField(max_length=200)

    class Meta:
        ordering = ["-since", "-pk"]
        indexes = [models.Index(fields=["model", "since"])]

    def __str__(self) -> str:
        return f"{self.model.name} since {self.since:%Y-%m-%d}"


class PolicyVersion(models.Model):
    """An immutable, numbered document of one workload. `actions.add_version` writes it; triggers protect it."""

    workload = models.ForeignKey(Workload, models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    digest = models.CharField(max_length=71)  # sha256:<64 hex> of `canonical`
    canonical = models.TextField()  # RFC 8785 JSON: exactly the bytes that routers receive
    note = models.CharField(max_length=400, blank=True, default="")
    author_label = models.CharField(max_length=200)
    author_user_id = models.CharField(max_length=64, null=True, blank=True)  # noqa: DJ001 — no person wrote it
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["workload", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["workload", "number"], name="version_number_once"),
            models.UniqueConstraint(fields=["workload", "digest"], name="version_digest_once"),
        ]

    def __str__(self) -> str:
        return f"{self.workload.name} v{self.number}"

    @property
    def document(self) -> dict[str, Any]:
        return cast("dict[str, Any]", msgspec.json.decode(self.canonical))


class Assignment(models.Model):
    """What an environment serves for a workload now. Only this app's `actions` write it."""

    class Mode(models.TextChoices):
        SHADOW = "shadow"
        PERCENTAGE = "percentage"
        FULL = "full"

    environment = models.ForeignKey(Environment, models.PROTECT, related_name="assignments")
    workload = models.ForeignKey(Workload, models.PROTECT, related_name="assignments")
    baseline = models.ForeignKey(PolicyVersion, models.PROTECT, related_name="+")
    candidate = models.ForeignKey(PolicyVersion, models.PROTECT, null=True, blank=True, related_name="+")
    # The rollout that moves it, as routers see it. Stored by value: this app does not depend on rollouts.
    rollout = models.UUIDField(null=True, blank=True)
    stage = models.PositiveSmallIntegerField(null=True, blank=True)
    mode = models.CharField(max_length=16, choices=Mode.choices, blank=True, default="")
    share_pcm = models.PositiveIntegerField(default=0, validators=[MaxValueValidator(100_000)])
    mirror_pcm = models.PositiveIntegerField(default=0, validators=[MaxValueValidator(100_000)])
    salt = models.CharField(max_length=64, blank=True, default="")
    cost_cap_nusd = models.BigIntegerField(null=True, blank=True)
    pin_model = models.CharField(max_length=120, blank=True, default="")  # empty: no pin
    pin_reason = models.CharField(max_length=400, blank=True, default="")
    revision = models.BigIntegerField()  # the environment's revision of its last change
    # The workload's part of the snapshot, ready to be joined: publishing one change costs one fragment.
    fragment = models.TextField()
    prices = models.TextField(default="{}")  # prices of the models in its documents, as in the snapshot
    changed_at = models.DateTimeField()  # by the database's clock; readback measures from it

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["environment", "workload"], name="one_assignment_each"),
            models.CheckConstraint(
                name="candidate_comes_with_a_rollout",
                condition=models.Q(candidate__isnull=True, rollout__isnull=True, mode="")
                | models.Q(candidate__isnull=False, rollout__isnull=False, stage__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["environment", "revision"])]

    def __str__(self) -> str:
        return f"{self.workload.name} in {self.environment.name} at {self.revision}"


class Revision(models.Model):
    """The history of an environment's revisions, with the change that made each."""

    environment = models.ForeignKey(Environment, models.PROTECT, related_name="revisions")
    number = models.BigIntegerField()
    workload = models.ForeignKey(Workload, models.PROTECT, related_name="+")
    cause = models.CharField(max_length=64)  # the audited action: `rollout.advance`, `assignment.pin`
    removed = models.BooleanField(default=False)  # the workload is no longer served
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["environment", "number"], name="revision_once")]

    def __str__(self) -> str:
        return f"{self.environment.name} r{self.number}: {self.cause}"


class Router(models.Model):
    """The last known state of a router process, written every few seconds by `fleet.writer`, by the database's
    clock."""

    environment = models.ForeignKey(Environment, models.CASCADE, related_name="routers")
    instance = models.CharField(max_length=128)
    client = models.CharField(max_length=128, blank=True, default="")  # software/version
    # The snapshot named by its If-None-Match: applied and, if it has a store, on its disk.
    # `fleet.readback.applied` compares this with its last ack, which may be newer if the disk rejects writes.
    epoch = models.CharField(max_length=36, blank=True, default="")
    revision = models.BigIntegerField(default=0)
    acked_epoch = models.CharField(max_length=36, blank=True, default="")
    acked_revision = models.BigIntegerField(default=0)
    acked_at = models.DateTimeField(null=True, blank=True)
    first_polled_at = models.DateTimeField(null=True, blank=True)  # null: from before this was recorded
    polled_at = models.DateTimeField()
    left_at = models.DateTimeField(null=True, blank=True)  # it sent `leaving`; a later poll overrides that
    applied_at = models.DateTimeField(null=True, blank=True)
    # How far its reported minutes were ahead of the database's clock at the last refusal.
    clock_ahead_s = models.FloatField(null=True, blank=True)
    clock_ahead_at = models.DateTimeField(null=True, blank=True)
    # When it last reported outcomes without decisions (an older client), so unfinished tasks are unknown.
    reported_partly_at = models.DateTimeField(null=True, blank=True)
    # The last refusal per workload, cleared when it applies that workload: {workload: {"digest": …, "error": …, "at":
    # …}}
    rejected = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["environment", "instance"], name="router_once")]
        indexes = [models.Index(fields=["environment", "polled_at"])]

    def __str__(self) -> str:
        return f"{self.instance} at {self.revision}"


class Listening(models.Model):
    """A period in which a gateway could hear routers and record what it heard."""

    began_at = models.DateTimeField()
    until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.began_at:%Y-%m-%d %H:%M:%S} to {self.until:%H:%M:%S}"


class Published(models.Model):
    """What the bucket of snapshots contains for one environment. Only `snapshots.publish` writes it."""

    environment = models.OneToOneField(Environment, models.CASCADE, related_name="published")
    address = models.CharField(max_length=400, blank=True, default="")  # bucket/key
    epoch = models.CharField(max_length=36, blank=True, default="")
    revision = models.BigIntegerField(default=-1)  # -1: nothing published yet
    poll_interval_ms = models.PositiveIntegerField(
        default=0
    )  # is in the body, and changes without a revision
    key_id = models.CharField(max_length=16, blank=True, default="")  # of the signing key
    tag = models.CharField(max_length=200, blank=True, default="")  # the store's own tag of our last write
    published_at = models.DateTimeField(null=True, blank=True)
    checked_at = models.DateTimeField(null=True, blank=True)  # when the object was last seen unchanged
    # Consecutive failures (0: none), the next attempt, and the last error.
    failures = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=400, blank=True, default="")
    # The process that is publishing, and when its claim expires.
    claim = models.UUIDField(null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.address} at {self.revision}"
