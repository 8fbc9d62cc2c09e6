"""The append-only log. Only `audit.log` and `audit.checkpoints` write these tables; triggers forbid updates and
deletes."""

from django.db import models

from controlplane.core.actors import shown


class Entry(models.Model):
    """One change, or one refused attempt, chained to the entry before it. See `controlplane.audit.chain`."""

    seq = models.BigIntegerField(unique=True)  # 1, 2, 3 … without gaps
    body = models.BinaryField()  # the hashed RFC 8785 bytes
    prev_hash = models.CharField(max_length=64, unique=True)  # unique: a chain cannot fork
    hash = models.CharField(max_length=64, unique=True)
    # Copies of members of `body`, for filtering; `audit verify` checks that they match it.
    at = models.DateTimeField(db_index=True)
    actor_kind = models.CharField(max_length=8)
    actor_id = models.CharField(max_length=64)
    actor_label = models.CharField(max_length=200)
    action = models.CharField(max_length=64, db_index=True)  # `rollout.roll_back`
    target_kind = models.CharField(max_length=32)  # `rollout`
    target_id = models.CharField(max_length=200)
    environment = models.CharField(max_length=64, blank=True, default="")
    workload = models.CharField(max_length=200, blank=True, default="")
    outcome = models.CharField(max_length=8)  # `done` or `refused`
    reason = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["-seq"]
        indexes = [models.Index(fields=["target_kind", "target_id"]), models.Index(fields=["actor_id"])]
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return f"#{self.seq} {self.action} {self.target_kind} {self.target_id}"

    @property
    def who(self) -> str:
        return shown(self.actor_kind, self.actor_label)


class Head(models.Model):
    """The end of the chain: one row, locked last in every transaction that appends."""

    chain = models.CharField(max_length=36, unique=True)
    seq = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.chain} at {self.seq}"


class Checkpoint(models.Model):
    """A signed note (C2SP signed-note) of the head. It proves a later truncation of the log."""

    seq = models.BigIntegerField(unique=True)
    hash = models.CharField(max_length=64)
    note = models.TextField()
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"checkpoint at {self.seq}"


class RefusalWindow(models.Model):
    """One actor's refusals in a minute. The first few become entries; the rest are only counted here."""

    actor_key = models.CharField(max_length=80, unique=True)  # `key:4fXk0cYb2LqA`
    actor_label = models.CharField(max_length=200)
    actor_user_id = models.CharField(max_length=64, null=True, blank=True)  # noqa: DJ001 — null: no person
    began_at = models.DateTimeField()
    recorded = models.PositiveIntegerField(default=0)  # refusals recorded as entries
    folded = models.PositiveIntegerField(default=0)  # refusals only counted
    counts = models.JSONField(default=dict)  # {"assignment.pin role_missing": 13}
    # Identifies the last one counted.
    last = models.CharField(max_length=32, blank=True, default="", db_index=True)

    def __str__(self) -> str:
        return f"{self.actor_key}: {self.recorded} and {self.folded} more"
