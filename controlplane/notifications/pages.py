"""Pages for receivers, their deliveries, and break-glass that needs a review."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core.errors import InvalidInput, NotFound
from controlplane.core.names import validate_text
from controlplane.notifications import actions, events
from controlplane.notifications.models import BreakGlass, Delivery, Receiver
from controlplane.web.pages import (
    actor,
    attempt,
    console_view,
    done,
    may,
    must,
    page,
    paginated,
    person,
    status_of,
)
from controlplane.web.seen import SeenForm

_EVENTS = [(name, label) for name, label in events.TYPES.items()]


class TellingForm(forms.Form):
    """The reason for a change to receivers, kept in the audit log."""

    reason = forms.CharField(
        validators=[validate_text],
        required=False,
        max_length=400,
        widget=forms.TextInput(),
        help_text="Kept in the audit log with your name.",
    )


class ReviewForm(forms.Form):
    reason = forms.CharField(
        validators=[validate_text],
        max_length=400,
        label="Your findings",
        widget=forms.Textarea(
            attrs={"rows": 3, "placeholder": "Was it necessary? What is served now, and is it good?"}
        ),
        help_text="Kept in the audit log with your name.",
    )


class ReceiverForm(TellingForm):
    name = forms.CharField(max_length=80, widget=forms.TextInput(attrs={"placeholder": "On-call"}))
    kind = forms.ChoiceField(choices=Receiver.Kind.choices)
    address = forms.CharField(
        max_length=500,
        widget=forms.TextInput(attrs={"placeholder": "https://…"}),
        help_text="https://…, or an e-mail address. Internal addresses must be in WEBHOOK_ALLOWED.",
    )
    events = forms.MultipleChoiceField(
        choices=_EVENTS, required=False, widget=forms.CheckboxSelectMultiple, help_text="None selected: all."
    )
    environments = forms.CharField(
        required=False, max_length=1_000, help_text="Names, separated by commas. Empty: all environments."
    )
    field_order = ["name", "kind", "address", "events", "environments", "reason"]

    def clean_environments(self) -> list[str]:
        return [name for name in self.cleaned_data["environments"].replace(",", " ").split() if name]


class ReceiverEditForm(SeenForm, ReceiverForm):
    enabled = forms.BooleanField(required=False, help_text="A disabled receiver gets no messages.")
    kind = None  # type: ignore[assignment]  # the kind cannot change

    def __init__(self, *args: Any, receiver: Receiver, **kwargs: Any) -> None:
        initial = {
            "name": receiver.name,
            "address": receiver.address,
            "events": receiver.events,
            "environments": ", ".join(receiver.environments),
            "enabled": receiver.enabled,
            "expected": receiver.version,
        }
        super().__init__(*args, **({"initial": initial} | kwargs))
        self._secret = receiver.kind == Receiver.Kind.SLACK
        if self._secret:
            self.initial["address"] = ""
            self.fields["address"].required = False
            self.fields[
                "address"
            ].help_text = f"The current address is {receiver.address}. Leave empty to keep it."

    def clean_address(self) -> str | None:
        return self.cleaned_data["address"] or None


class RotateForm(TellingForm):
    hours = forms.IntegerField(
        min_value=0,
        max_value=168,
        initial=24,
        help_text="How long the previous secret also signs.",
    )


@console_view("GET")
def receivers(request: HttpRequest) -> HttpResponse:
    must(request, Role.ADMIN, "")
    dead = Delivery.objects.filter(state=Delivery.State.DEAD).count()
    listed = [
        (each, [events.TYPES.get(type_, type_) for type_ in each.events]) for each in Receiver.objects.all()
    ]
    context = {"receivers": listed, "dead": dead}
    return page(request, "notifications/receivers.html", context, title="Notifications")


@console_view("GET", "POST")
def add(request: HttpRequest) -> HttpResponse:
    must(request, Role.ADMIN, "")
    form = ReceiverForm(request.POST or None)
    if made := attempt(request, form, actions.add_receiver):
        return _added(request, *made)
    return _sheet(request, form, "Add a receiver", "Add", reverse("console:notifications"))


def _added(request: HttpRequest, receiver: Receiver, secret: str) -> HttpResponse:
    if not secret:
        return done(request, f"{receiver.name} now receives notifications.", to=_address(receiver))
    return _shown_once(request, receiver, secret)


def _shown_once(request: HttpRequest, receiver: Receiver, secret: str) -> HttpResponse:
    context = {"receiver": receiver, "secret": secret}
    return page(
        request,
        "notifications/secret.html",
        context,
        title="The signing secret",
        crumbs=[*_trail(), _crumb(receiver)],
    )


@console_view("GET", "POST")
def receiver_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    receiver = _receiver_for(request, pk)
    form = ReceiverEditForm(request.POST or None, receiver=receiver)
    if attempt(request, form, actions.edit_receiver, receiver):
        return done(request, "Saved.", to=_address(receiver))
    rows = paginated(request, receiver.deliveries.select_related("notification"), size=25)
    context = {"receiver": receiver, "form": form, "rows": rows, "rotating": RotateForm()}
    return page(
        request,
        "notifications/receiver.html",
        context,
        title=receiver.name,
        crumbs=_trail(),
        status=status_of(form),
    )


@console_view("POST")
def test(request: HttpRequest, pk: UUID) -> HttpResponse:
    receiver = _receiver_for(request, pk)
    actions.send_test(receiver, actor=actor(request), reason=_reason(request))
    return done(request, "A test was sent; the answer appears below in a moment.", to=_address(receiver))


@console_view("GET", "POST")
def rotate(request: HttpRequest, pk: UUID) -> HttpResponse:
    receiver = _receiver_for(request, pk)
    form = RotateForm(request.POST or None)
    if rotated := attempt(request, form, _rotate, receiver):
        return _shown_once(request, *rotated)
    return _sheet(request, form, "Rotate the signing secret", "Rotate", _address(receiver))


def _rotate(receiver: Receiver, *, hours: int, **values: Any) -> tuple[Receiver, str]:
    return actions.rotate_secret(receiver, expected=None, overlap=timedelta(hours=hours), **values)


@console_view("POST")
def send_again(request: HttpRequest, pk: UUID) -> HttpResponse:
    must(request, Role.ADMIN, "")
    delivery = Delivery.objects.select_related("receiver").filter(pk=pk).first()
    if delivery is None:
        raise NotFound(f"There is no delivery {pk}.")
    actions.send_again(delivery, actor=actor(request), reason=_reason(request))
    return done(request, "It is being sent again.", to=_address(delivery.receiver))


def _reason(request: HttpRequest) -> str:
    """Return the reason posted with a button. Its form is not shown again, so a bad reason becomes an error page."""
    form = TellingForm(request.POST)
    if not form.is_valid():
        raise InvalidInput("The reason is too long, or contains a character that cannot be stored.")
    return str(form.cleaned_data["reason"])


@console_view("GET")
def break_glasses(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    context = {"rows": paginated(request, _visible(request))}
    return page(request, "notifications/break_glasses.html", context, title="Break-glass")


@console_view("GET", "POST")
def review(request: HttpRequest, pk: UUID) -> HttpResponse:
    opened = _visible(request).filter(pk=pk).first()
    if opened is None:
        raise NotFound(f"There is no use of break-glass {pk}, or you may not see it.")
    form = ReviewForm(request.POST or None)
    if attempt(request, form, actions.review, opened):
        return done(request, "Reviewed. The banner is gone.", to=reverse("console:break_glasses"))
    own_id = str(person(request).pk)
    mine = opened.by_user_id == own_id or actions.role_awaits_review(own_id)
    allowed = may(request, Role.APPROVER, opened.environment) and not mine and opened.reviewed_at is None
    context = {"opened": opened, "form": form, "mine": mine, "allowed": allowed or form.is_bound}
    trail = [("Break-glass", reverse("console:break_glasses"))]
    return page(
        request, "notifications/review.html", context, title="Review", crumbs=trail, status=status_of(form)
    )


# --- access ----------------------------------------------------------------------------------------


def open_break_glass(request: HttpRequest) -> dict[str, Any]:
    """Return the unreviewed break-glass that every page shows: the newest one, and how many more there are."""
    if not request.user.is_authenticated or not may(request, Role.VIEWER, permissions.ANYWHERE):
        return {}
    opened = _visible(request).filter(reviewed_at=None)
    newest = list(opened[:1])
    return {"shown": newest, "more": opened.count() - 1 if newest else 0}


def _visible(request: HttpRequest) -> QuerySet[BreakGlass]:
    names = permissions.visible_environments(person(request))
    rows = BreakGlass.objects.all()
    return rows if names is None else rows.filter(environment__in=["", *names])


def _receiver_for(request: HttpRequest, pk: UUID) -> Receiver:
    must(request, Role.ADMIN, "")
    receiver = Receiver.objects.filter(pk=pk).first()
    if receiver is None:
        raise NotFound(f"There is no receiver {pk}.")
    return receiver


def _sheet(request: HttpRequest, form: forms.Form, heading: str, button: str, back: str) -> HttpResponse:
    context = {"form": form, "heading": heading, "button": button, "back": back}
    return page(
        request, "console/sheet.html", context, title=heading, crumbs=_trail(), status=status_of(form)
    )


def _trail() -> list[tuple[str, str]]:
    return [("Notifications", reverse("console:notifications"))]


def _crumb(receiver: Receiver) -> tuple[str, str]:
    return receiver.name, _address(receiver)


def _address(receiver: Receiver) -> str:
    return reverse("console:receiver", args=[receiver.pk])


urlpatterns = [
    path("notifications/", receivers, name="notifications"),
    path("notifications/add/", add, name="add_receiver"),
    path("notifications/<uuid:pk>/", receiver_page, name="receiver"),
    path("notifications/<uuid:pk>/test/", test, name="test_receiver"),
    path("notifications/<uuid:pk>/rotate/", rotate, name="rotate_receiver"),
    path("notifications/deliveries/<uuid:pk>/send-again/", send_again, name="send_again"),
    path("break-glass/", break_glasses, name="break_glasses"),
    path("break-glass/<uuid:pk>/", review, name="review_break_glass"),
]
