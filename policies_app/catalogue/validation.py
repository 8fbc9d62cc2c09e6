"""Validate documents against the workload's permissions and the model catalogue."""

from collections.abc import Mapping, Sequence
from typing import Any

from pointsman.errors import PolicyInvalid
from pointsman.policy import CatalogueModel, Locate, Problem, WorkloadRules, parse, validate
from pointsman.problems import first_of
from policies_app.models import Model, Workload


def problems_of(document: Any, workload: Workload, *, locate: Locate | None = None) -> list[Problem]:
    """Return every problem of a document, including warnings, using the same checks as the router package.

    `locate` maps a path to (line, column) if the document came from text.
    """
    return validate(
        document,
        locate=locate,
        workload=WorkloadRules(
            name=workload.name,
            escalatable=workload.escalatable,
            retryable=workload.retryable,
            batchable=workload.batchable,
        ),
        catalogue=catalogue(),
    )


def told(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Return the problems for an answer or a page: the first 50, and how many more there are."""
    return [problem.as_dict() for problem in first_of(problems)]


def problems_of_text(text: str, workload: Workload) -> list[Problem]:
    """Return every problem of the document in `text`, including warnings."""
    try:
        document = parse(text)
    except PolicyInvalid as error:
        return list(error.problems)
    return problems_of(document.data, workload, locate=document.locate)


def catalogue() -> Mapping[str, CatalogueModel]:
    return {
        model.name: CatalogueModel(
            name=model.name,
            input_nusd_per_mtok=model.input_nusd_per_mtok,
            output_nusd_per_mtok=model.output_nusd_per_mtok,
            context_window=model.context_window,
            enabled=model.enabled,
            quality=model.quality,
        )
        for model in Model.objects.all()
    }
