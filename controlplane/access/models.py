"""Who may do what: teams, memberships with a role per environment, and the keys of machines."""

from django.conf import settings
from django.db import models

from controlplane.core.ids import uuid7


class Role(models.TextChoices):
    """What a person may do in one environment. Each role is a right of its own, not a rank; admin has all."""

    VIEWER = "viewer", "viewer: sees everything"
    EDITOR = "editor", "editor: writes versions, proposes rollouts"
    APPROVER = "approver", "approver: approves what others proposed"
    OPERATOR = "operator", "operator: starts, pauses, rolls back, pins"
    ADMIN = "admin", "admin: everything, and keys and members"


AGENT = "agent"  # a scope of keys, and no role: nobody holds it
# What an agent's key may at most, of what its person may. `ApiView` opens few of an operator's addresses to it.
AGENT_ROLES = frozenset({Role.VIEWER, Role.EDITOR, Role.OPERATOR})
SCOPES = [*Role.choices, (AGENT, "agent: reads, checks, proposes, pauses, rolls back; nothing else")]


class Team(models.Model):
    """The owners of workloads. Members may edit the workloads that their team owns."""

    name = models.SlugField(max_length=64, unique=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="pointsman_teams", blank=True)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One role of one person in one environment; an empty environment means all of them."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    # By name, not by foreign key: access lies below policies_app and must not know its models.
    environment = models.SlugField(max_length=64, blank=True, default="")
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "environment", "role"], name="one_membership_each"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role} in {self.environment or 'every environment'}"


class Invitation(models.Model):
    """A link that makes one account with these roles, once. The row keeps the SHA-256 of the token in the link."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    token_sha256 = models.CharField(max_length=64, unique=True)
    invited = models.CharField(
        max_length=120
    )  # who it is for, as the inviter calls them; nothing rests on it
    email = models.EmailField(blank=True, default="")
    roles = models.JSONField(
        default=list
    )  # [{"environment": "production", "role": "editor"}]; "" is everywhere
    teams = models.JSONField(default=list)  # names
    # Null for the instance itself (a command), and for a key that belongs to nobody. When it is accepted, they must
    # still be allowed to give all of it.
    inviter = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="invitations"
    )
    # The id of the key that it was made with: it is good for as long as that key is. Empty: by a person, or a command.
    inviter_key = models.CharField(max_length=16, blank=True, default="")
    inviter_label = models.CharField(max_length=200)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="accepted_invitations"
    )

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"invitation of {self.invited}"


class Key(models.Model):
    """A machine's key. The secret is shown once and never stored: the row keeps its SHA-256."""

    class Kind(models.TextChoices):
        ROUTER = "router", "router: polls snapshots, reports outcomes"
        ADMIN = "admin", "admin: the API for scripts"

    kind = models.CharField(max_length=8, choices=Kind.choices)
    key_id = models.CharField(max_length=16, unique=True)  # the public part, found in the key itself
    secret_sha256 = models.CharField(max_length=64)
    label = models.CharField(max_length=120)
    environment = models.SlugField(
        max_length=64, blank=True, default=""
    )  # empty: every one (admin keys only)
    scopes = models.JSONField(default=list)  # roles, or `agent` alone (admin keys); routers have none
    workloads = models.JSONField(default=list)  # names; empty: all of the environment
    # The person behind it: what the key does counts as theirs (four eyes). Null for unattended routers.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="keys"
    )
    rotated_from = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="successors"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)  # written at most once a minute

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="router_key_has_an_environment",
                condition=~models.Q(kind="router", environment=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.kind} key {self.key_id})"

    @property
    def is_agent(self) -> bool:
        return AGENT in self.scopes

    @property
    def roles(self) -> frozenset[str]:
        """What its scopes give it, before anything limits it."""
        return frozenset(AGENT_ROLES if self.is_agent else self.scopes)


class ChangeRequest(models.Model):
    """A change, other than a rollout, that waits for a second person (`four_eyes`): what, where, who asked, who agreed.

    What it does when enough people have agreed is the action's that `action` names.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "waits for an approval"
        APPLIED = "applied"
        REJECTED = "rejected"
        WITHDRAWN = "withdrawn"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    action = models.CharField(max_length=64)  # the audited action: `assignment.serve_first`
    environment = models.SlugField(max_length=64)
    workload = models.SlugField(max_length=120, blank=True, default="")
    subject = (
        models.JSONField()
    )  # what is asked for, as the binding covers it: {"version": 3, "digest": "sha256:…"}
    reason = models.TextField()
    requested_by = models.CharField(max_length=200)
    contributors = models.JSONField()  # ids of people; null for a key that belongs to nobody
    approvals = models.JSONField(default=list)  # [{"user_id", "label", "reason", "at"}], in the order given
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["action", "environment", "workload"],
                condition=models.Q(state="waiting"),
                name="one_waiting_change_request",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.environment} {self.workload}".rstrip()


class Answer(models.Model):
    """The first answer to a POST with an `Idempotency-Key`, kept in that request's own transaction.

    The row is inserted before the work: a second request with the same key waits for the first one's commit,
    then finds its answer; if the first one failed, the row is gone with all it did, and the second does it.
    """

    principal = models.CharField(max_length=80)  # `key:4fXk0cYb2LqA`; one caller's keys never meet another's
    idempotency_key = models.CharField(max_length=255)
    request_sha256 = models.CharField(max_length=64)  # of method, path and body
    status = models.PositiveSmallIntegerField(default=0)
    body = models.JSONField(null=True)
    headers = models.JSONField(default=dict)  # ETag and Location, where there were
    at = models.DateTimeField(db_index=True)  # pruned after a day

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["principal", "idempotency_key"], name="answer_once"),
        ]

    def __str__(self) -> str:
        return f"{self.principal} {self.idempotency_key}: {self.status}"
