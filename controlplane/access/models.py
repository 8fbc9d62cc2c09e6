"""Access control: teams, memberships with a role per environment, invitations, API keys, change requests."""

from importlib import import_module

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models.fields.json import KT

from controlplane.core.actors import key_label
from controlplane.core.ids import uuid7


class Role(models.TextChoices):
    """A right of a person in one environment. Roles do not imply each other, except that admin has all."""

    VIEWER = "viewer", "viewer: sees everything"
    EDITOR = "editor", "editor: writes versions, proposes rollouts"
    APPROVER = "approver", "approver: approves what others proposed"
    OPERATOR = "operator", "operator: starts, pauses, rolls back, pins"
    ADMIN = "admin", "admin: everything, and keys and members"


AGENT = "agent"  # a scope of keys, not a role: nobody holds it
# The most that an agent's key may do, within its person's rights. `ApiView` opens only few operator URLs to it.
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
    # By name, not by foreign key: this app must not depend on policies_app.
    environment = models.SlugField(max_length=64, blank=True, default="")
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "environment", "role"], name="one_membership_each"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role} in {self.environment or 'every environment'}"


class Session(AbstractBaseSession):
    """A browser's session. Only `sign_in.session_store` writes it; the columns repeat what is in its data."""

    user_id = models.BigIntegerField(null=True, db_index=True)  # null: nobody has given a name yet
    signed_in = models.BooleanField(default=False)  # false with a person: it waits for the second factor

    @classmethod
    def get_session_store_class(cls) -> type[SessionBase]:
        store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
        return store


class Invitation(models.Model):
    """A link that creates one account with these roles, once. The row stores the SHA-256 of the link's token."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    token_sha256 = models.CharField(max_length=64, unique=True)
    # Who it is for, as the inviter calls them; nothing rests on it.
    invited = models.CharField(max_length=120)
    email = models.EmailField(blank=True, default="")
    # [{"environment": "production", "role": "editor"}]; "" is everywhere.
    roles = models.JSONField(default=list)
    teams = models.JSONField(default=list)  # names
    # Null for the instance itself (a command), and for a key without a person. At acceptance the inviter must still
    # be allowed to grant everything.
    inviter = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="invitations"
    )
    # The id of the key that created it; it is valid only as long as that key. Empty: created by a person or a
    # command.
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
    """An API key. The secret is shown once and never stored: the row has its SHA-256."""

    class Kind(models.TextChoices):
        ROUTER = "router", "router: polls snapshots, reports outcomes"
        ADMIN = "admin", "admin: the API for scripts"

    kind = models.CharField(max_length=8, choices=Kind.choices)
    key_id = models.CharField(max_length=16, unique=True)  # the public part, contained in the key's text
    secret_sha256 = models.CharField(max_length=64)
    label = models.CharField(max_length=120)
    # Empty: every one (admin keys only).
    environment = models.SlugField(max_length=64, blank=True, default="")
    scopes = models.JSONField(default=list)  # roles, or only `agent` (admin keys); router keys have none
    workloads = models.JSONField(default=list)  # names; empty: all of the environment
    # The person it acts for: what the key does counts as theirs (four eyes). Null for unattended routers.
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
    def words(self) -> str:
        """Return how entries and pages name the key: `key LABEL of PERSON`."""
        person = None if self.user is None else self.user.get_username()
        return key_label(self.label, person, is_agent=self.is_agent)

    @property
    def is_agent(self) -> bool:
        return AGENT in self.scopes

    @property
    def roles(self) -> frozenset[str]:
        """Return the roles that its scopes give it, before other limits."""
        return frozenset(AGENT_ROLES if self.is_agent else self.scopes)


GRANT = "membership.grant"  # the only kind of which several can wait in one environment: one for each person and role


class ChangeRequest(models.Model):
    """A change, other than a rollout, that waits for a second person (`four_eyes`).

    The action named by `action` applies it once enough people have approved.
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
    # What is requested, as the binding covers it: {"version": 3, "digest": "sha256:…"}.
    subject = models.JSONField()
    reason = models.TextField()
    requested_by = models.CharField(max_length=200)
    contributors = models.JSONField()  # ids of people; null for a key without a person
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
                condition=models.Q(state="waiting") & ~models.Q(action=GRANT),
                name="one_waiting_change_request",
            ),
            models.UniqueConstraint(
                "environment",
                KT("subject__user_id"),
                KT("subject__role"),
                condition=models.Q(state="waiting", action=GRANT),
                name="one_waiting_role_request",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.environment} {self.workload}".rstrip()


class Answer(models.Model):
    """The first answer to a POST with an `Idempotency-Key`, stored in that request's transaction.

    The row is inserted before the work. A second request with the same key waits for the first one's commit and finds
    its answer. If the first one failed, the row was rolled back with its work, and the second does it.
    """

    principal = models.CharField(max_length=80)  # `key:4fXk0cYb2LqA`; separates the keys of different callers
    idempotency_key = models.CharField(max_length=255)
    request_sha256 = models.CharField(max_length=64)  # of method, path and body
    status = models.PositiveSmallIntegerField(default=0)
    body = models.JSONField(null=True)
    headers = models.JSONField(default=dict)  # ETag and Location, if present
    at = models.DateTimeField(db_index=True)  # pruned after a day

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["principal", "idempotency_key"], name="answer_once"),
        ]

    def __str__(self) -> str:
        return f"{self.principal} {self.idempotency_key}: {self.status}"
