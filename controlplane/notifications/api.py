"""/api/v1 for notifications: receivers, their deliveries, and break-glass that needs a review."""

from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.access.permissions import Principal
from controlplane.core.errors import InvalidInput, NotFound
from controlplane.notifications import actions, events
from controlplane.notifications.models import BreakGlass, Delivery, Receiver
from controlplane.web import strict
from controlplane.web.api import PAGE, ApiView
from controlplane.web.fields import ReasonField

STATE = OpenApiParameter(
    "state", str, enum=Delivery.State.values, description="only deliveries in this state"
)


class ReceiverSerializer(serializers.ModelSerializer[Receiver]):
    events = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="types of events sent to it; empty: all"
    )
    environments = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="environments whose events it receives; empty: all",
    )
    secrets = serializers.SerializerMethodField(help_text="fingerprints of its signing secrets, newest first")

    class Meta:
        model = Receiver
        fields = [
            "id", "name", "kind", "address", "events", "environments", "enabled", "secrets", "failures",
            "rests_until", "created_at", "version",
        ]  # fmt: skip
        read_only_fields = fields

    def get_secrets(self, receiver: Receiver) -> list[dict[str, str | None]]:
        return [{"fingerprint": kept["fingerprint"], "until": kept["until"]} for kept in receiver.secrets]


class NewReceiverSerializer(ReceiverSerializer):
    secret = serializers.CharField(
        read_only=True,
        allow_null=True,
        help_text="the signing secret of a webhook, shown only once; null for other kinds",
    )

    class Meta(ReceiverSerializer.Meta):
        fields = [*ReceiverSerializer.Meta.fields, "secret"]
        read_only_fields = fields


class ReceiverInput(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    kind = serializers.ChoiceField(Receiver.Kind.choices)
    address = serializers.CharField(max_length=500, help_text="https://…, or an e-mail address")
    events = serializers.ListField(
        child=serializers.ChoiceField(sorted(events.TYPES)),
        default=list,
        max_length=50,
        help_text="empty: all",
    )
    environments = serializers.ListField(
        child=serializers.SlugField(max_length=64),
        default=list,
        max_length=100,
        help_text="names; empty: all",
    )
    reason = ReasonField()


class ReceiverEdit(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80, required=False)
    address = serializers.CharField(max_length=500, required=False)
    events = serializers.ListField(
        child=serializers.ChoiceField(sorted(events.TYPES)), required=False, max_length=50
    )
    environments = serializers.ListField(
        child=serializers.SlugField(max_length=64), required=False, max_length=100
    )
    enabled = serializers.BooleanField(required=False)
    reason = ReasonField()


class RotateSecretInput(serializers.Serializer[Any]):
    overlap_hours = serializers.IntegerField(default=24, min_value=0, max_value=168)
    reason = ReasonField()


class TellingInput(serializers.Serializer[Any]):
    reason = ReasonField()


class ReviewInput(serializers.Serializer[Any]):
    reason = ReasonField(required=True)


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    notification = serializers.UUIDField(source="notification_id", help_text="the `webhook-id`")
    type = serializers.CharField(source="notification.type")
    sentence = serializers.CharField(source="notification.data.sentence")

    class Meta:
        model = Delivery
        fields: ClassVar[list[str]] = [
            "id", "notification", "type", "sentence", "state", "attempts", "due_at", "attempted_at", "status", "answer",
        ]  # fmt: skip
        read_only_fields = fields


class BreakGlassSerializer(serializers.ModelSerializer[BreakGlass]):
    class Meta:
        model = BreakGlass
        fields: ClassVar[list[str]] = [
            "id", "action", "environment", "workload", "target_kind", "target_id", "entry", "by_label", "reason", "at",
            "reviewed_at", "reviewed_by",
        ]  # fmt: skip
        read_only_fields = fields


class ReceiverBase(ApiView):
    """Base of the receiver views. Only administrators of every environment may use them: receivers span
    environments."""

    def receiver(self, pk: UUID) -> Receiver:
        self.require(Role.ADMIN, "")
        found = Receiver.objects.filter(pk=pk).first()
        if found is None:
            raise NotFound(f"There is no receiver {pk}.")
        return found


class ReceiversView(ReceiverBase):
    shown_once = ("secret",)
    queries = PAGE

    @extend_schema(responses=ReceiverSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the receivers of notifications."""
        self.require(Role.ADMIN, "")
        return self.page(Receiver.objects.all(), ReceiverSerializer)

    @extend_schema(request=ReceiverInput, responses={201: NewReceiverSerializer})
    def post(self, request: Request) -> Response:
        """Add a receiver. Only this response contains a webhook's signing secret."""
        self.require(Role.ADMIN, "")
        receiver, text = actions.add_receiver(actor=self.actor, **self.validated(ReceiverInput))
        answer = {**ReceiverSerializer(receiver).data, "secret": text or None}
        return Response(answer, status=201, headers={"ETag": f'"{receiver.version}"'})


class ReceiverView(ReceiverBase):
    @extend_schema(responses=ReceiverSerializer)
    def get(self, request: Request, pk: UUID) -> Response:
        """Return one receiver, with the ETag for an edit."""
        return self.versioned(ReceiverSerializer(self.receiver(pk)))

    @extend_schema(request=ReceiverEdit, responses=ReceiverSerializer)
    def patch(self, request: Request, pk: UUID) -> Response:
        """Change a receiver. `enabled: false` requires a reason."""
        receiver, expected = self.receiver(pk), self.expected_version()
        edited = actions.edit_receiver(
            receiver, expected=expected, actor=self.actor, **self.validated(ReceiverEdit)
        )
        return self.versioned(ReceiverSerializer(edited))


class RotateSecretView(ReceiverBase):
    shown_once = ("secret",)

    @extend_schema(request=RotateSecretInput, responses={201: NewReceiverSerializer})
    def post(self, request: Request, pk: UUID) -> Response:
        """Create a new signing secret. The previous one also signs during the overlap."""
        receiver, expected = self.receiver(pk), self.expected_version()
        data = self.validated(RotateSecretInput)
        overlap = timedelta(hours=data["overlap_hours"])
        rotated, text = actions.rotate_secret(
            receiver, expected=expected, actor=self.actor, overlap=overlap, reason=data["reason"]
        )
        answer = {**ReceiverSerializer(rotated).data, "secret": text}
        return Response(answer, status=201, headers={"ETag": f'"{rotated.version}"'})


class TestReceiverView(ReceiverBase):
    @extend_schema(request=TellingInput, responses={202: DeliverySerializer})
    def post(self, request: Request, pk: UUID) -> Response:
        """Send a test message. The delivery shows the receiver's answer within seconds."""
        receiver = self.receiver(pk)
        delivery = actions.send_test(
            receiver, actor=self.actor, reason=self.validated(TellingInput)["reason"]
        )
        return Response(DeliverySerializer(delivery).data, status=202)


class DeliveriesView(ReceiverBase):
    queries = ("state", *PAGE)

    @extend_schema(parameters=[STATE], responses=DeliverySerializer(many=True))
    def get(self, request: Request, pk: UUID) -> Response:
        """List what was sent to a receiver and how it answered, newest first."""
        rows = self.receiver(pk).deliveries.select_related("notification")
        state = request.query_params.get("state", "")
        if state and state not in Delivery.State.values:
            raise InvalidInput(f"A delivery's state must be one of {', '.join(Delivery.State.values)}.")
        return self.page(rows.filter(state=state) if state else rows, DeliverySerializer)


class DeliveryBase(ReceiverBase):
    def delivery(self, pk: UUID) -> Delivery:
        self.require(Role.ADMIN, "")
        found = Delivery.objects.select_related("notification", "receiver").filter(pk=pk).first()
        if found is None:
            raise NotFound(f"There is no delivery {pk}.")
        return found


class DeliveryView(DeliveryBase):
    @extend_schema(responses=DeliverySerializer)
    def get(self, request: Request, pk: UUID) -> Response:
        """Return one delivery, with the receiver's last answer."""
        return Response(DeliverySerializer(self.delivery(pk)).data)


class SendAgainView(DeliveryBase):
    @extend_schema(request=TellingInput, responses={202: DeliverySerializer})
    def post(self, request: Request, pk: UUID) -> Response:
        """Resend a delivery that was given up, with a new series of attempts."""
        reason = self.validated(TellingInput)["reason"]
        again = actions.send_again(self.delivery(pk), actor=self.actor, reason=reason)
        return Response(DeliverySerializer(again).data, status=202)


class BreakGlassesView(ApiView):
    queries = ("open", *PAGE)

    @extend_schema(
        parameters=[OpenApiParameter("open", bool, description="only those that nobody has reviewed yet")],
        responses=BreakGlassSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """List the starts and changes that bypassed an approval (break-glass), with their reviewers."""
        rows = visible_break_glass(self.actor)
        if strict.boolean(request.query_params, "open"):
            rows = rows.filter(reviewed_at=None)
        return self.page(rows, BreakGlassSerializer)


class ReviewView(ApiView):
    @extend_schema(request=ReviewInput, responses=BreakGlassSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        """Review a break-glass, as an approver other than the person who used it. This removes its banner."""
        opened = visible_break_glass(self.actor).filter(pk=pk).first()
        if opened is None:
            raise NotFound(f"There is no use of break-glass {pk}, or you may not see it.")
        reason = self.validated(ReviewInput)["reason"]
        return Response(BreakGlassSerializer(actions.review(opened, actor=self.actor, reason=reason)).data)


def visible_break_glass(principal: Principal) -> QuerySet[BreakGlass]:
    """Return the uses of break-glass in environments that the caller may see, and those without an environment."""
    names = permissions.visible_environments(principal)
    rows = BreakGlass.objects.all()
    return rows if names is None else rows.filter(environment__in=["", *names])


urlpatterns = [
    path("notifications/receivers", ReceiversView.as_view(), name="receivers"),
    path("notifications/receivers/<uuid:pk>", ReceiverView.as_view(), name="receiver"),
    path("notifications/receivers/<uuid:pk>/rotate", RotateSecretView.as_view(), name="receiver-rotate"),
    path("notifications/receivers/<uuid:pk>/test", TestReceiverView.as_view(), name="receiver-test"),
    path("notifications/receivers/<uuid:pk>/deliveries", DeliveriesView.as_view(), name="deliveries"),
    path("notifications/deliveries/<uuid:pk>", DeliveryView.as_view(), name="delivery"),
    path(
        "notifications/deliveries/<uuid:pk>/send-again", SendAgainView.as_view(), name="delivery-send-again"
    ),
    path("break-glass", BreakGlassesView.as_view(), name="break-glasses"),
    path("break-glass/<uuid:pk>/review", ReviewView.as_view(), name="break-glass-review"),
]
