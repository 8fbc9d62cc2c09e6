"""Pages of teams, which own workloads."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.access import actions
from controlplane.access.models import Role, Team
from controlplane.access.pages.forms import MembersForm, NewTeamForm
from controlplane.core.errors import NotFound
from controlplane.web.pages import attempt, console_view, done, may, must, page, paginated, status_of


@console_view("GET", "POST")
def teams(request: HttpRequest) -> HttpResponse:
    """List all teams; a post creates one."""
    must(request, Role.ADMIN if request.method == "POST" else None, _place(request))
    form = NewTeamForm(request.POST or None)
    if made := attempt(request, form, actions.create_team):
        return done(request, f"The team {made} was created. Now choose its members.", to=address_of(made))
    rows = paginated(request, Team.objects.prefetch_related("members").order_by("name"))
    context = {"rows": rows, "form": form, "may_change": may(request, Role.ADMIN, "")}
    return page(request, "people/teams.html", context, title="Teams", crumbs=_trail(), status=status_of(form))


@console_view("GET", "POST")
def team_page(request: HttpRequest, name: str) -> HttpResponse:
    """Show one team; a post replaces its members."""
    must(request, Role.ADMIN if request.method == "POST" else None, _place(request))
    team = Team.objects.prefetch_related("members").filter(name=name).first()
    if team is None:
        raise NotFound(f"There is no team {name}.")
    members = team.members.all()
    seen = " ".join(["members", *(str(member.pk) for member in members)])
    form = MembersForm(request.POST or None, initial={"members": members, "seen": seen})
    if attempt(request, form, actions.set_team_members, team):
        return done(
            request,
            "Saved. People who were left out can no longer edit the team's workloads.",
            to=address_of(team),
        )
    context = {"team": team, "form": form, "may_change": may(request, Role.ADMIN, "")}
    trail = [*_trail(), ("Teams", reverse("console:teams"))]
    return page(request, "people/team.html", context, title=name, crumbs=trail, status=status_of(form))


def _place(request: HttpRequest) -> str | None:
    """Return the place whose role is needed: anywhere for reading; everywhere for changes, because teams own
    workloads in all environments."""
    return "" if request.method == "POST" else None


def address_of(team: Team) -> str:
    return reverse("console:team", args=[team.name])


def _trail() -> list[tuple[str, str]]:
    return [("People", reverse("console:people"))]
