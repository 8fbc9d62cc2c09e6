"""/api/v1/rollouts/<id>/report: the evidence report as JSON, and as Markdown at `….md`."""

from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.web.api import ApiView
from rollout_app.evidence_report.gather import evidence_report
from rollout_app.evidence_report.markdown import as_markdown
from rollout_app.selectors import rollout_for


class ReportView(ApiView):
    """The evidence report of a rollout: what, who, why, blast radius, shadow, stages, verdicts, result and caveats."""

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, rollout: UUID, as_text: bool = False) -> HttpResponseBase:
        found = evidence_report(rollout_for(self.actor, rollout))
        if not as_text:
            return Response(found)
        headers = {"Content-Disposition": f'attachment; filename="rollout-{rollout}.md"'}
        return HttpResponse(as_markdown(found), content_type="text/markdown; charset=utf-8", headers=headers)
