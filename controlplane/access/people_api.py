"""/api/v1 for people and invitations."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.contrib.auth.models import User
from django.urls import path, reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access import actions, permissions, selectors
from controlplane.access.models import Invitation, Membership, Role
from controlplane.web.api import PAGE, ApiView
from controlplane.web.fields import ReasonField


class HeldRoleSerializer(serializers.ModelSerializer[Membership]):
    class Meta:
        model = Membership
        fields = ["id", "environment", "role"]
        extra_kwargs: ClassVar[dict[str, Any]] = {"environment": {"help_text": "empty: in every environment"}}


class PersonSerializer(serializers.ModelSerializer[User]):
    name = serializers.CharField(source="get_full_name", read_only=True)
    active = serializers.BooleanField(source="is_active", read_only=True)
    superuser = serializers.BooleanField(source="is_superuser", read_only=True)
    second_factor = serializers.SerializerMethodField(help_text="whether a second factor is set up")
    roles = HeldRoleSerializer(source="memberships", many=True, read_only=True)
    teams: Any = serializers.SlugRelatedField("name", source="pointsman_teams", many=True, read_only=True)

    class Meta:
        model = User
        fields = [
            "id", "username", "name", "email", "active", "superuser", "second_factor", "last_login", "roles",
            "teams",
        ]  # fmt: skip
        read_only_fields = fields

    def get_second_factor(self, user: User) -> bool:
        return bool(user.authenticator_set.all())  # type: ignore[attr-defined]


class NeededReasonInput(serializers.Serializer[Any]):
    reason = ReasonField(required=True)


class GivenRoleSerializer(serializers.Serializer[Any]):
    environment = serializers.CharField(
        max_length=64, default="", allow_blank=True, help_text="empty: every environment"
    )
    role = serializers.ChoiceField(Role.choices)


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    roles = GivenRoleSerializer(many=True, read_only=True)
    teams = serializers.ListField(child=serializers.CharField(), read_only=True)
    inviter = serializers.CharField(source="inviter_label", read_only=True)
    accepted_by = serializers.CharField(source="accepted_by.username", default=None, read_only=True)

    class Meta:
        model = Invitation
        fields = [
            "id", "invited", "email", "roles", "teams", "inviter", "created_at", "expires_at", "revoked_at",
            "accepted_at", "accepted_by",
        ]  # fmt: skip
        read_only_fields = fields


class NewInvitationSerializer(InvitationSerializer):
    link = serializers.CharField(read_only=True, help_text="to send to the person; shown only once")

    class Meta(InvitationSerializer.Meta):
        fields = [*InvitationSerializer.Meta.fields, "link"]
        read_only_fields = fields


class InvitationInput(serializers.Serializer[Any]):
    invited = serializers.CharField(max_length=120, help_text="the person it is for, as you call them")
    email = serializers.EmailField(default="", allow_blank=True, max_length=254)
    roles = serializers.ListField(child=GivenRoleSerializer(), min_length=1, max_length=200)
    teams = serializers.ListField(child=serializers.SlugField(max_length=64), default=list, max_length=100)
    days = serializers.IntegerField(
        default=3, min_value=1, max_value=30, help_text="days that the link is valid"
    )
    reason = ReasonField(required=True)


class PeopleView(ApiView):
    queries = PAGE

    @extend_schema(responses=PersonSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List people with their roles. Requires an admin, who sees the roles in the environments they administer."""
        return self.page(selectors.people_for(self.actor), PersonSerializer)


class PersonView(ApiView):
    @extend_schema(responses=PersonSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Return one person."""
        return Response(PersonSerializer(selectors.person_for(self.actor, pk)).data)


class PersonChangeView(ApiView):
    """Base of views that make one change to a person. The action requires an admin of every environment."""

    change: Callable[..., User]

    def changed(self, pk: int) -> Response:
        user = selectors.person_for(self.actor, pk)
        type(self).change(user, actor=self.actor, **self.validated(NeededReasonInput))
        return Response(PersonSerializer(selectors.person_for(self.actor, pk)).data)


class DeactivatePersonView(PersonChangeView):
    change = staticmethod(actions.deactivate_person)

    @extend_schema(request=NeededReasonInput, responses=PersonSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Deactivate a person's account. Sessions and keys end at once."""
        return self.changed(pk)


class ActivatePersonView(PersonChangeView):
    change = staticmethod(actions.activate_person)

    @extend_schema(request=NeededReasonInput, responses=PersonSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Activate a deactivated account. Its keys stay revoked."""
        return self.changed(pk)


class EndSessionsView(PersonChangeView):
    change = staticmethod(actions.end_sessions)

    @extend_schema(request=NeededReasonInput, responses=PersonSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """End all of a person's sessions."""
        return self.changed(pk)


class RemoveSecondFactorView(PersonChangeView):
    change = staticmethod(actions.remove_second_factor)

    @extend_schema(request=NeededReasonInput, responses=PersonSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Remove a person's lost second factor."""
        return self.changed(pk)


class WithdrawSuperuserView(PersonChangeView):
    change = staticmethod(actions.withdraw_superuser)

    @extend_schema(request=NeededReasonInput, responses=PersonSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Withdraw a person's superuser rights."""
        return self.changed(pk)


class InvitationsView(ApiView):
    shown_once = ("link",)
    queries = PAGE

    @extend_schema(responses=InvitationSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the invitations for environments that you administer, newest first."""
        return self.page(selectors.invitations_for(self.actor), InvitationSerializer)

    @extend_schema(request=InvitationInput, responses={201: NewInvitationSerializer})
    def post(self, request: Request) -> Response:
        """Invite somebody. Only this response contains the link. Requires an admin of each environment in which it
        grants a role."""
        self.require(Role.ADMIN, permissions.ANYWHERE)
        data = self.validated(InvitationInput)
        lives = timedelta(days=data.pop("days"))
        invitation, token = actions.invite(actor=self.actor, lives=lives, **data)
        link = request.build_absolute_uri(reverse("invitation", args=[token]))
        return Response({**InvitationSerializer(invitation).data, "link": link}, status=201)


class RevokeInvitationView(ApiView):
    @extend_schema(request=NeededReasonInput, responses=InvitationSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        """Revoke an unused invitation."""
        invitation = selectors.invitation_for(self.actor, pk)
        reason = self.validated(NeededReasonInput)["reason"]
        ended = actions.revoke_invitation(invitation.pk, actor=self.actor, reason=reason)
        return Response(InvitationSerializer(ended).data)


urlpatterns = [
    path("people", PeopleView.as_view(), name="people"),
    path("people/<int:pk>", PersonView.as_view(), name="person"),
    path("people/<int:pk>/deactivate", DeactivatePersonView.as_view(), name="person-deactivate"),
    path("people/<int:pk>/activate", ActivatePersonView.as_view(), name="person-activate"),
    path("people/<int:pk>/end-sessions", EndSessionsView.as_view(), name="person-end-sessions"),
    path(
        "people/<int:pk>/remove-second-factor",
        RemoveSecondFactorView.as_view(),
        name="person-remove-second-factor",
    ),
    path(
        "people/<int:pk>/withdraw-superuser",
        WithdrawSuperuserView.as_view(),
        name="person-withdraw-superuser",
    ),
    path("invitations", InvitationsView.as_view(), name="invitations"),
    path("invitations/<uuid:pk>/revoke", RevokeInvitationView.as_view(), name="invitation-revoke"),
]
