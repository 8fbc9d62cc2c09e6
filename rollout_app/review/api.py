"""/api/v1 views of the review of an environment, owner, workload or rollout, as JSON and as CSV at `….csv`."""

import csv
import io
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.core import clock
from controlplane.core.errors import Conflict, InvalidInput, NotFound
from controlplane.web.api import ApiView
from policies_app.models import Workload
from policies_app.selectors import environment_for, workload_for
from rollout_app.review import answers
from rollout_app.review.environments import (
    MOST_DAYS_BY_DAY,
    figures_of_the_whole,
    review_environment,
    spend_by_owner,
    spend_by_time,
)
from rollout_app.review.rollouts import review_rollout
from rollout_app.review.workloads import review_workload
from rollout_app.selectors import rollout_for

MOST_DAYS = 90
MOST_BY_DAY = 31  # maximum days listed one by one; each is a row per endpoint
STEPS = {"day": 1, "week": 7}
_DAYS = OpenApiParameter("days", int, description=f"Length in days, 1 to {MOST_DAYS}; 7 if not given.")


class ReviewView(ApiView):
    """Base of the review views: the answer as JSON, or as a table at the URL that ends in `.csv`."""

    table = staticmethod(answers.table)
    file_name = "review.csv"

    def reply(self, answer: Mapping[str, Any], *, as_csv: bool) -> HttpResponseBase:
        if not as_csv:
            return Response(answer)
        text = io.StringIO()
        csv.writer(text).writerows(self.table(answer))
        headers = {"Content-Disposition": f'attachment; filename="{self.file_name}"'}
        return HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)


class EnvironmentReviewView(ReviewView):
    """Cost, success and route mix of all workloads, by owner, workload and endpoint, largest change first."""

    queries = ("days", "owner")

    @extend_schema(
        parameters=[_DAYS, OpenApiParameter("owner", str, description="Only the workloads of this team.")],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, environment: str, as_csv: bool = False) -> HttpResponseBase:
        place = environment_for(self.actor, environment)
        owner = request.query_params.get("owner")
        review = review_environment(place, days=_days(request), now=clock.now(), owner=owner)
        if owner is not None and not review.names:
            raise _no_such_owner(owner)
        answer = answers.environment_answer(review, figures_of_the_whole(review), spend_by_time(review))
        return self.reply(answer, as_csv=as_csv)


class SpendView(ReviewView):
    """Spend and saving of all workloads by day or week, in total and by owner."""

    table = staticmethod(answers.spend_table)
    file_name = "spend.csv"
    queries = ("days", "by", "owner")

    @extend_schema(
        parameters=[
            _DAYS,
            OpenApiParameter(
                "by", str, enum=list(STEPS), description=f"`day` takes up to {MOST_BY_DAY} days."
            ),
            OpenApiParameter("owner", str, description="Only the workloads of this team."),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, environment: str, as_csv: bool = False) -> HttpResponseBase:
        place, days = environment_for(self.actor, environment), _days(request)
        by = request.query_params.get("by", "day" if days <= MOST_DAYS_BY_DAY else "week")
        if by not in STEPS or (by == "day" and days > MOST_BY_DAY):
            raise InvalidInput(f"by must be day (up to {MOST_BY_DAY} days) or week, not {by[:40]!r}.")
        owner = request.query_params.get("owner")
        if owner is not None and not Workload.objects.filter(owner__name=owner).exists():
            raise _no_such_owner(owner)
        period, parts = spend_by_owner(place, days=days, now=clock.now(), step=STEPS[by], owner=owner)
        return self.reply(answers.spend_answer(place, period, by, parts), as_csv=as_csv)


class WorkloadReviewView(ReviewView):
    """One workload now and before: diagnosis, changes with intervals, by endpoint, model, arm, version and rule."""

    queries = ("days",)

    @extend_schema(parameters=[_DAYS], responses=OpenApiTypes.OBJECT)
    def get(
        self, request: Request, environment: str, workload: str, as_csv: bool = False
    ) -> HttpResponseBase:
        place = environment_for(self.actor, environment)
        found = workload_for(self.actor, workload)
        length = timedelta(days=_days(request))
        review = review_workload(place, found, end=clock.now(), length=length)
        return self.reply(answers.workload_answer(place, found, review), as_csv=as_csv)


class RolloutReviewView(ReviewView):
    """A rollout's arms in the same minutes, and the workload before, during and after it."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, rollout: UUID, as_csv: bool = False) -> HttpResponseBase:
        found = rollout_for(self.actor, rollout)
        review = review_rollout(found)
        if review is None:
            raise Conflict("This rollout has not started, so there is nothing to review.")
        return self.reply(answers.rollout_answer(found, review), as_csv=as_csv)


def _no_such_owner(owner: str) -> NotFound:
    return NotFound(f"No workload belongs to a team {owner[:80]!r}.")


def _days(request: Request) -> int:
    text = request.query_params.get("days", "7")
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_DAYS):
        raise InvalidInput(f"days must be a whole number from 1 to {MOST_DAYS}, not {text[:40]!r}.")
    return int(text)
