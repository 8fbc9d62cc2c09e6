"""/api/v1 for access: keys, memberships, teams."""

from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.auth.models import User
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access import actions, permissions, selectors
from controlplane.access.models import SCOPES, Key, Membership, Role, Team
from controlplane.core.actors import Actor
from controlplane.core.errors import NotFound
from controlplane.core.names import validate_text
from controlplane.core.rotation import MAX_OVERLAP
from controlplane.web.api import PAGE, REASON, ApiView
from controlplane.web.fields import ReasonField, ZonedDateTimeField


class KeySerializer(serializers.ModelSerializer[Key]):
    user = serializers.CharField(source="user.username", default=None, read_only=True)
    scopes = serializers.ListField(child=serializers.ChoiceField(Role.choices), read_only=True)
    workloads = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="the workloads that it is limited to; empty: no limit",
    )

    class Meta:
        model = Key
        fields = [
            "key_id", "kind", "environment", "label", "scopes", "workloads", "user", "created_at",
            "expires_at", "revoked_at", "last_used_at",
        ]  # fmt: skip
        read_only_fields = fields


class NewKeySerializer(KeySerializer):
    key = serializers.CharField(read_only=True, help_text="the secret, shown only once")

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]
        read_only_fields = fields


class KeyInput(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(Key.Kind.choices)
    environment = serializers.SlugField(max_length=64, default="", allow_blank=True)
    label = serializers.CharField(max_length=120)  # type: ignore[assignment]  # the key's label, not the field's
    scopes = serializers.ListField(child=serializers.ChoiceField(SCOPES), default=list, max_length=5)
    workloads = serializers.ListField(
        child=serializers.SlugField(max_length=120), default=list, max_length=500
    )
    expires_at = ZonedDateTimeField(default=None, allow_null=True)
    reason = ReasonField()


class RevokeInput(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=400, validators=[validate_text])


class RotateInput(serializers.Serializer[Any]):
    overlap_hours = serializers.IntegerField(
        default=24, min_value=0, max_value=MAX_OVERLAP // timedelta(hours=1)
    )
    reason = ReasonField()


class MembershipSerializer(serializers.ModelSerializer[Membership]):
    user = serializers.CharField(source="user.username")
    reason = ReasonField()

    class Meta:
        model = Membership
        fields = ["id", "user", "environment", "role", "reason"]
        validators: list[Any] = []  # the action reports an existing membership as a 409


class NewMembershipSerializer(MembershipSerializer):
    break_glass = serializers.BooleanField(
        default=False,
        write_only=True,
        help_text="grant it now without a second person; the audit log records it",
    )

    class Meta(MembershipSerializer.Meta):
        fields = [*MembershipSerializer.Meta.fields, "break_glass"]


class AskedSerializer(serializers.Serializer[Any]):
    change_request = serializers.UUIDField(help_text="the request to approve under /change-requests")


class TeamSerializer(serializers.ModelSerializer[Team]):
    members = serializers.SlugRelatedField("username", many=True, queryset=User.objects.all())
    reason = ReasonField()

    class Meta:
        model = Team
        fields = ["name", "members", "reason"]
        # The action reports a taken name as a 409.
        extra_kwargs: ClassVar[dict[str, Any]] = {"name": {"validators": []}}


class MembersInput(serializers.Serializer[Any]):
    members = serializers.ListField(child=serializers.CharField(max_length=150), max_length=1000)
    reason = ReasonField()


class KeysView(ApiView):
    shown_once = ("key",)
    queries = PAGE

    @extend_schema(responses=KeySerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the keys of the environments that you administer, and your own; a key sees itself."""
        return self.page(selectors.keys_managed_by(self.actor), KeySerializer)

    @extend_schema(request=KeyInput, responses={201: NewKeySerializer})
    def post(self, request: Request) -> Response:
        """Issue a key. Its text is only in this response.

        An admin key acts for the person who creates it, with roles that they hold. A router key requires an admin.
        """
        data = self.validated(KeyInput)
        if data["kind"] == Key.Kind.ROUTER:
            for workload in data["workloads"] or [None]:
                self.require(Role.ADMIN, data["environment"], workload)
        key, text = actions.issue_key(
            actor=self.actor, user=_person(self.actor, data), known_only=True, **data
        )
        return Response({**KeySerializer(key).data, "key": text}, status=201)


class RevokeKeyView(ApiView):
    @extend_schema(request=RevokeInput, responses=KeySerializer)
    def post(self, request: Request, key_id: str) -> Response:
        """Revoke a key. Revoking it twice changes nothing."""
        key = key_for(self.actor, key_id)
        reason = self.validated(RevokeInput)["reason"]
        return Response(KeySerializer(actions.revoke_key(key.key_id, actor=self.actor, reason=reason)).data)


class RotateKeyView(ApiView):
    shown_once = ("key",)

    @extend_schema(request=RotateInput, responses={201: NewKeySerializer})
    def post(self, request: Request, key_id: str) -> Response:
        """Replace a key with a successor that has the same rights. The old one stays valid for the overlap.

        If the key acts for a person, only that person gets the new text.
        """
        key = key_for(self.actor, key_id)
        data = self.validated(RotateInput)
        overlap = timedelta(hours=data["overlap_hours"])
        successor, text = actions.rotate_key(
            key.key_id, actor=self.actor, overlap=overlap, reason=data["reason"]
        )
        return Response({**KeySerializer(successor).data, "key": text}, status=201)


class MembershipsView(ApiView):
    queries = PAGE

    @extend_schema(responses=MembershipSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List who has which role in the environments that you administer."""
        self.require(Role.ADMIN, permissions.ANYWHERE)
        rows = Membership.objects.select_related("user")
        names = selectors.environments_administered_by(self.actor)
        return self.page(rows if names is None else rows.filter(environment__in=names), MembershipSerializer)

    @extend_schema(request=NewMembershipSerializer, responses={201: MembershipSerializer})
    def post(self, request: Request) -> Response:
        """Grant a person a role in one environment, or in every one (empty `environment`)."""
        data = self.validated(NewMembershipSerializer)
        environment = data.get("environment", "")
        self.require(Role.ADMIN, environment)
        (user,) = actions.people([data["user"]["username"]])
        granted = actions.grant_role(
            user,
            data["role"],
            environment,
            actor=self.actor,
            reason=data["reason"],
            break_glass=data["break_glass"],
        )
        return Response(MembershipSerializer(granted).data, status=201)


class MembershipRequestsView(ApiView):
    @extend_schema(request=MembershipSerializer, responses={201: AskedSerializer})
    def post(self, request: Request) -> Response:
        """Request a role that needs a second person: approver or admin, if four eyes are required."""
        data = self.validated(MembershipSerializer)
        environment = data.get("environment", "")
        self.require(Role.ADMIN, environment)
        (user,) = actions.people([data["user"]["username"]])
        asked = actions.request_role(user, data["role"], environment, actor=self.actor, reason=data["reason"])
        return Response({"change_request": str(asked.pk)}, status=201)


class MembershipView(ApiView):
    delete_queries = ("reason",)

    @extend_schema(parameters=[REASON], responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Withdraw a role from a person, effective with the next request."""
        membership = Membership.objects.filter(pk=pk).first()
        if membership is None or not permissions.has_role(self.actor, Role.ADMIN, membership.environment):
            raise NotFound("There is no such membership, or you may not end it.")
        actions.withdraw_role(membership, actor=self.actor, reason=self.query_reason())
        return Response(status=204)


class TeamsView(ApiView):
    queries = PAGE

    @extend_schema(responses=TeamSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the teams that own workloads, with their members."""
        return self.page(Team.objects.prefetch_related("members"), TeamSerializer)

    @extend_schema(request=TeamSerializer, responses={201: TeamSerializer})
    def post(self, request: Request) -> Response:
        """Create a team. Its members may edit the workloads that it will own."""
        self.require(Role.ADMIN, "")
        data = self.validated(TeamSerializer)
        team = actions.create_team(
            data["name"], members=data["members"], actor=self.actor, reason=data["reason"]
        )
        return Response(TeamSerializer(team).data, status=201)


class TeamView(ApiView):
    @extend_schema(request=MembersInput, responses=TeamSerializer)
    def put(self, request: Request, name: str) -> Response:
        """Replace a team's members. People who are left out can no longer edit its workloads."""
        self.require(Role.ADMIN, "")
        data = self.validated(MembersInput)
        team = Team.objects.filter(name=name).first()
        if team is None:
            raise NotFound(f"There is no team {name}.")
        members = actions.people(data["members"])
        team = actions.set_team_members(team, members, actor=self.actor, reason=data["reason"])
        return Response(TeamSerializer(team).data)


# --- access -----------------------------------------------------------------------------------------


def key_for(actor: Actor, key_id: str) -> Key:
    """Return a key that the actor may revoke or rotate; 404 for any other."""
    key = selectors.keys_managed_by(actor).filter(key_id=key_id).first()
    if key is None:
        raise NotFound(f"There is no key {key_id}, or you may not manage it.")
    return key


def _person(actor: Actor, data: dict[str, Any]) -> User | None:
    """Return the person that an admin key acts for: its creator, because four eyes count people, not keys."""
    if data["kind"] != Key.Kind.ADMIN or actor.user_id is None:
        return None
    return User.objects.get(pk=actor.user_id)


urlpatterns = [
    path("keys", KeysView.as_view(), name="keys"),
    path("keys/<slug:key_id>/revoke", RevokeKeyView.as_view(), name="key-revoke"),
    path("keys/<slug:key_id>/rotate", RotateKeyView.as_view(), name="key-rotate"),
    path("memberships", MembershipsView.as_view(), name="memberships"),
    path("membership-requests", MembershipRequestsView.as_view(), name="membership-requests"),
    path("memberships/<int:pk>", MembershipView.as_view(), name="membership"),
    path("teams", TeamsView.as_view(), name="teams"),
    path("teams/<slug:name>", TeamView.as_view(), name="team"),
]
