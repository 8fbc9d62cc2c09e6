"""Find all problems of a document at once: shape, names, conditions, consistency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pointsman.errors import PolicyInvalid
from pointsman.policy.canonical import canonical, plain
from pointsman.policy.catalogue import CatalogueModel, check_catalogue
from pointsman.policy.document import MAX_BYTES, Locate
from pointsman.policy.references import check_references
from pointsman.policy.rules import check_conditions, read_rules
from pointsman.policy.schema import SCHEMA
from pointsman.policy.shape import Reporter, check_json, check_shape
from pointsman.policy.text import parse
from pointsman.problems import Near, Problem, Severity, did_you_mean

__all__ = ["WorkloadRules", "load", "validate"]

# Suggestions cost far more than problems, so a hostile document must not cause an unlimited number: after this
# many comparisons of misspelt words with known ones, further problems have no suggestion.
_MOST_COMPARISONS = 2_000


@dataclass(frozen=True, slots=True)
class WorkloadRules:
    """What the workload allows in its policies."""

    name: str
    escalatable: bool
    retryable: bool
    batchable: bool


def validate(
    data: Any,
    *,
    locate: Locate | None = None,
    workload: WorkloadRules | None = None,
    catalogue: Mapping[str, CatalogueModel] | None = None,
) -> list[Problem]:
    """Return all problems of a document including warnings, in the order of the text if `locate` is given.

    data       as parsed; any value is allowed, and none makes this function raise
    locate     `Document.locate`, for lines and columns
    workload   what the workload allows; not checked if omitted
    catalogue  the existing models, by name; not checked if omitted
    """
    found: list[Problem] = []
    left = _MOST_COMPARISONS

    def report(
        path: str,
        code: str,
        message: str,
        offset: int = 0,
        severity: Severity = "error",
        near: Near | None = None,
    ) -> None:
        nonlocal left
        if near is not None and left > 0:
            left -= len(near[1])
            message += did_you_mean(*near)
        line, column = (locate(path, offset) if locate is not None else None) or (None, None)
        found.append(Problem(path, code, message, severity, line, column))

    _check(data, report, workload, catalogue)
    return sorted(found, key=lambda problem: (problem.line or 0, problem.column or 0))


def _check(
    data: Any,
    report: Reporter,
    workload: WorkloadRules | None,
    catalogue: Mapping[str, CatalogueModel] | None,
) -> None:
    if not check_json(data, report):
        return
    if len(canonical(data)) > MAX_BYTES:
        report("", "too_large", f"a document may have at most {MAX_BYTES // 1024} KiB")
        return
    data = plain(data)  # as routers read it
    check_shape(data, SCHEMA, report)
    if not isinstance(data, Mapping):
        return
    check_references(data, report)
    rules = read_rules(data)
    check_conditions(data, rules, report)
    if workload is not None:
        _check_workload(data, workload, report)
    if catalogue is not None:
        check_catalogue(data, rules, catalogue, report)


def load(text: str | bytes) -> dict[str, Any]:
    """Parse and validate. Raises `PolicyInvalid` with all problems if one of them is an error."""
    document = parse(text)
    problems = validate(document.data, locate=document.locate)
    if any(problem.severity == "error" for problem in problems):
        raise PolicyInvalid(problems)
    return document.data


def _check_workload(data: Mapping[str, Any], workload: WorkloadRules, report: Reporter) -> None:
    if data.get("workload") != workload.name:
        report("workload", "wrong_workload", f"this policy must be for the workload {workload.name}")
    escalate, retry = data.get("escalate"), data.get("retry")
    if isinstance(escalate, Mapping) and escalate.get("max", 1) and not workload.escalatable:
        report(
            "escalate",
            "not_escalatable",
            f"the workload {workload.name} does not allow escalation; remove this section",
        )
    if isinstance(retry, Mapping) and retry.get("attempts") and not workload.retryable:
        report(
            "retry",
            "not_retryable",
            f"the workload {workload.name} does not allow retries; remove this section",
        )
    if data.get("batch") is True and not workload.batchable:
        report(
            "batch",
            "not_batchable",
            f"the workload {workload.name} does not allow batching; set this to false",
        )
