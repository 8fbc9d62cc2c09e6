"""Receivers of notifications, the notifications themselves, and their deliveries."""

from django.db import models

from controlplane.core.ids import uuid7


class Receiver(models.Model):
    """A destination for messages. Its credentials (a signing secret, an incoming webhook's URL) are sealed."""

    class Kind(models.TextChoices):
        WEBHOOK = "webhook", "Webhook, signed"
        SLACK = "slack", "Slack, as text"
        EMAIL = "email", "E-mail"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=80, unique=True)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    # For display. A Slack URL is a secret, so only its host and its end are stored here.
    address = models.CharField(max_length=500)
    sealed_address = models.TextField(blank=True, default="")  # Slack's full URL (`sealing`)
    events = models.JSONField(default=list, blank=True)  # types (`events.TYPES`); empty: all
    environments = models.JSONField(default=list, blank=True)  # names; empty: all
    enabled = models.BooleanField(default=True)
    # Newest first; an older one also signs until it expires: [{"id", "sealed", "fingerprint", "until"}]
    secrets = models.JSONField(default=list, blank=True)
    version = models.PositiveIntegerField(default=1)  # for If-Match
    created_at = models.DateTimeField()
    # Nothing is sent before this time after a failure, so a dead receiver costs one attempt now and then.
    rests_until = models.DateTimeField(null=True, blank=True)
    failures = models.PositiveIntegerField(default=0)  # consecutive

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Notification(models.Model):
    """Something to report, written in the transaction of the change itself (an outbox row)."""

    # `webhook-id`, the same at each attempt.
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    type = models.CharField(max_length=40)
    environment = models.CharField(max_length=64, blank=True, default="")
    data = models.JSONField()
    at = models.DateTimeField(db_index=True)
    # Set for something that happens once but is seen repeatedly (a held rollout), so that it is reported once.
    key = models.CharField(max_length=200, unique=True, null=True, blank=True)  # noqa: DJ001 — null: reported each time
    spread = models.BooleanField(default=False)  # whether its deliveries were created

    class Meta:
        indexes = [
            models.Index(fields=["id"], condition=models.Q(spread=False), name="notification_to_spread"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class Delivery(models.Model):
    """One notification to one receiver: waiting for its next attempt, delivered, or given up."""

    class State(models.TextChoices):
        WAITING = "waiting"
        DELIVERED = "delivered"
        DEAD = "dead", "given up"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    notification = models.ForeignKey(Notification, models.CASCADE, related_name="deliveries")
    receiver = models.ForeignKey(Receiver, models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    # A running attempt moves it forward, so that nobody else makes the same attempt.
    due_at = models.DateTimeField()
    attempted_at = models.DateTimeField(null=True, blank=True)
    status = models.PositiveSmallIntegerField(null=True, blank=True)  # HTTP
    answer = models.TextField(blank=True, default="")  # the start of the last answer, or the error

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["notification", "receiver"], name="delivered_once_each"),
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=models.Q(state="waiting"), name="delivery_due"),
            models.Index(fields=["receiver", "-id"], name="deliveries_of_receiver"),
        ]

    def __str__(self) -> str:
        return f"{self.notification_id} to {self.receiver_id}: {self.state}"


_BREAK_GLASS = {
    "rollout.break_glass": "a rollout started without approval",
    "assignment.break_glass": "a first version served without approval",
    "environment.break_glass": "four eyes switched off by one person",
    "membership.break_glass": "a role given without approval",
}


class BreakGlass(models.Model):
    """A guard bypassed by one person. Open, and shown on every page, until somebody else has reviewed it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    action = models.CharField(max_length=64)  # `rollout.break_glass`
    environment = models.CharField(max_length=64, blank=True, default="")
    workload = models.CharField(max_length=200, blank=True, default="")
    target_kind = models.CharField(max_length=32)
    target_id = models.CharField(max_length=200)
    entry = models.BigIntegerField(unique=True)  # the number of its audit entry
    by_label = models.CharField(max_length=200)
    by_user_id = models.CharField(max_length=64, null=True, blank=True)  # noqa: DJ001 — null: no person
    reason = models.TextField()
    at = models.DateTimeField()
    reviewed_at = models.DateTimeField(null=True, blank=True, db_index=True)
    reviewed_by = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "break-glass starts"

    def __str__(self) -> str:
        return f"{self.action} by {self.by_label}"

    @property
    def what(self) -> str:
        """Return the action as readable text."""
        return _BREAK_GLASS.get(self.action, self.action.partition(".")[0].replace("_", " "))
