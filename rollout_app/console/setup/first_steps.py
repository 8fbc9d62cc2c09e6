"""The steps from an empty instance to a guarded rollout, checked off automatically. Reads only."""

from dataclasses import dataclass, replace

from django.http import HttpRequest
from django.urls import reverse

from controlplane.access.models import ChangeRequest, Key, Role, Team
from controlplane.web.pages import may, person
from policies_app.console.lookups import may_edit
from policies_app.four_eyes.actions import SERVE, change_requests_for
from policies_app.four_eyes.pages import address_of
from policies_app.models import Assignment, Environment, Model, PolicyVersion, Router, Workload
from rollout_app.models import Rollout


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One step. `address`: where to do it; empty if this person may not, and then `who` says who may.

    `waiting`: requested already, and a second person has to approve it.
    """

    label: str
    about: str
    done: bool
    address: str = ""
    who: str = ""
    waiting: bool = False


def first_steps(request: HttpRequest) -> list[FirstStep]:
    """Return the steps; empty once a rollout was started, because the home page then has news."""
    if Rollout.objects.exclude(started_at=None).exists():
        return []
    workload = Workload.objects.order_by("pk").first()
    # One that needs no second person comes first: a new instance has one administrator.
    environment = Environment.objects.order_by("four_eyes", "pk").first()
    admin, anywhere = may(request, Role.ADMIN, ""), None
    # The role is read already; whether the person is on the team takes further queries.
    writes = admin or (
        may(request, Role.EDITOR, anywhere) and (workload is None or may_edit(request, workload))
    )
    return [
        _step("An environment", "Where routers live: production, staging.", environment is not None, "new_environment",
              allowed=admin),
        _step("Two models", "A cheap one and a strong one, with prices.", Model.objects.count() > 1, "new_model",
              allowed=admin),
        _step("A team", "It owns workloads; its editors write their policies.",
              workload is not None or Team.objects.exists(), "teams", allowed=admin),
        _step("A workload", "A family of requests with an owner and a quality bar.", workload is not None,
              "new_workload", allowed=may(request, Role.EDITOR, anywhere)),
        _step("Its first version", "The policy that routers execute; the editor starts with a template.",
              PolicyVersion.objects.exists(), "new_version", workload, allowed=writes),
        _requested(
            request,
            _step("Serve it", "An environment gives it to its routers.", Assignment.objects.exists(), "serve", workload,
                  environment, allowed=environment is not None and may(request, Role.OPERATOR, environment.name))),
        _step("A router's key", "Shown once, with the lines to paste into your gateway.",
              Key.objects.filter(kind=Key.Kind.ROUTER).exists(), "new_key", allowed=may(request, Role.ADMIN, anywhere)),
        _step("A router that polls", "The fleet page shows its first poll.", Router.objects.exists(), "fleet"),
        _step("The first rollout", "A second version, moved to traffic in guarded stages.", False, "propose",
              workload, allowed=writes),
    ]  # fmt: skip


def _step(
    label: str,
    about: str,
    done: bool,
    page: str,
    *things: Workload | Environment | None,
    allowed: bool = True,
) -> FirstStep:
    names = [thing.name for thing in things if thing is not None]
    if done or not allowed or len(names) < len(things):
        ahead = len(names) < len(things)
        return FirstStep(
            label, about, done, who="" if done or ahead else "Someone with the required role does this."
        )
    return FirstStep(label, about, done, _address(page, names))


def _requested(request: HttpRequest, step: FirstStep) -> FirstStep:
    """Return the step as waiting if somebody requested it: doing it again would only be refused."""
    if step.done:
        return step
    waiting = (
        change_requests_for(person(request)).filter(action=SERVE, state=ChangeRequest.State.WAITING).first()
    )
    if waiting is None:
        return step
    about = "Requested; it waits for a second person's approval."
    return replace(step, about=about, address=address_of(waiting), who="", waiting=True)


def _address(page: str, names: list[str]) -> str:
    # The proposal takes its workload from the query string, the other pages from the path.
    if page == "propose":
        return f"{reverse('console:propose')}?workload={names[0]}"
    return reverse(f"console:{page}", args=names)
