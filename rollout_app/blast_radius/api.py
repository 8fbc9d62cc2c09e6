"""/api/v1 views of the blast radius, of a rollout and of a version that is not proposed yet."""

from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.core.errors import InvalidInput
from controlplane.web.api import ApiView
from policies_app.selectors import environment_for, version_for, workload_for
from rollout_app.blast_radius.answers import radius_answer
from rollout_app.blast_radius.radius import radius_of, radius_of_candidate
from rollout_app.selectors import rollout_for


class RolloutRadiusView(ApiView):
    """What a rollout moves: which share of which endpoint to which model, the daily cost, and what is unknown."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, rollout: UUID) -> Response:
        return Response(radius_answer(radius_of(rollout_for(self.actor, rollout))))


class CandidateRadiusView(ApiView):
    """What a rollout of version `candidate` would move, compared with what is served now. Does not propose anything."""

    queries = ("candidate",)

    @extend_schema(
        parameters=[OpenApiParameter("candidate", int, required=True)], responses=OpenApiTypes.OBJECT
    )
    def get(self, request: Request, environment: str, workload: str) -> Response:
        place, found = environment_for(self.actor, environment), workload_for(self.actor, workload)
        text = request.query_params.get("candidate", "")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise InvalidInput(f"candidate must be a version's number, not {text[:40]!r}.")
        return Response(radius_answer(radius_of_candidate(place, found, version_for(found, int(text)))))
