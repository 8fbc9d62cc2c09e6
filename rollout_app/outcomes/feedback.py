"""POST /router/v1/feedback: find the task of each item and how the grade changes its sums. No database access."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings

from pointsman.errors import PointsmanError as ClientError
from pointsman.reporting import limits
from pointsman.reporting.consistency import is_ahead
from pointsman.token import DecisionToken
from rollout_app.models import Feedback
from rollout_app.outcomes import contributions
from rollout_app.outcomes.aggregate import ArmContribution, Contribution, RouteKey
from rollout_app.outcomes.schemas import FeedbackItem, Problem
from rollout_app.outcomes.store import Grade

_LATEST = 253_402_300_799  # the last second of the year 9999
_UNSTORABLE = re.compile("[\\0\ud800-\udfff]")  # NUL and lone surrogates: no database stores them as text
OLDEST = timedelta(days=28)  # feedback on older tasks is stored but grades nothing
FARTHEST = timedelta(days=1)  # ahead: no machine's clock, but a token that somebody made


@dataclass(frozen=True, slots=True)
class GradedWorkload:
    """The facts about a workload that are needed to grade its tasks."""

    pk: int
    signal: str  # the kind of feedback that grades its tasks; any other text: none does


def token_of(
    number: int, item: FeedbackItem, environment: str, problems: list[Problem]
) -> DecisionToken | None:
    """Return the decision that the item is about. Return None and add a problem if it is invalid; a decision of another
    environment also adds a problem.
    """
    try:
        token = DecisionToken.decode(item.decision_id)
    except ClientError as error:
        problems.append(Problem(number, "decision_id", str(error), "feedback"))
        return None
    if token.environment != environment:
        problems.append(
            Problem(number, "decision_id", "the decision was made in another environment", "feedback")
        )
    if token.arm not in ("baseline", "candidate") or not _is_plausible(token):
        problems.append(Problem(number, "decision_id", "its fields do not form a valid decision", "feedback"))
        return None
    return token


def _is_plausible(token: DecisionToken) -> bool:
    """Return whether each field fits its column. Anybody can make a token: an application passes on what it gets."""
    pair, cell, cost = token.differing or "", token.cell or 0, token.cost_nusd or 0
    texts: Iterable[tuple[str, int]] = (
        (token.workload, limits.NAME), (token.endpoint, limits.TEXT), (token.rule, limits.NAME),
        (token.model, limits.NAME), (pair, limits.PAIR),
    )  # fmt: skip
    return (
        0 < token.version <= limits.VERSION
        and 0 <= (token.stage or 0) <= limits.STAGE
        and 0 <= token.at <= _LATEST
        and cell < limits.CELLS
        and cost <= limits.TASK_COST_NUSD
        and (not pair or ">" in pair or pair in (limits.SAME, limits.OTHER))
        and all(len(text) <= most and not _UNSTORABLE.search(text) for text, most in texts)
    )


def minute_of(token: DecisionToken) -> datetime:
    """Return the minute in which the task counts."""
    return datetime.fromtimestamp(token.at - token.at % 60, UTC)


def is_grade(item: FeedbackItem, workload: GradedWorkload) -> bool:
    """Return whether the item grades its task."""
    return item.kind == workload.signal and item.success is not None


def grade(
    environment: int,
    item: FeedbackItem,
    token: DecisionToken,
    workload: GradedWorkload,
    cap: int | None,
    now: datetime,
) -> Grade:
    """Return the feedback row and its changes to the sums. `cap`: the cost cap of the task's rollout in nano-USD."""
    row = Feedback(
        environment_id=environment,
        workload_id=workload.pk,
        decision_sha256=_identity(item.decision_id, token),
        kind=item.kind,
        success=item.success,
        score=item.score,
        rollout=token.rollout or "",
        arm=token.arm,
        version=token.version,
        endpoint=token.endpoint,
        rule=token.rule,
        model=token.model,
        at=now,
    )
    minute, success = minute_of(token), item.success
    if success is None or not is_grade(item, workload) or minute < _oldest(now) or is_ahead(minute, now):
        return Grade(row, ())
    return Grade(row, _changes(environment, success, token, workload, cap, minute))


def _oldest(now: datetime) -> datetime:
    """Return the earliest task that can be graded.

    Not one whose day may be partly pruned: the day's sums would be made again, from this grade alone.
    """
    kept = min(settings.OUTCOME_RETENTION_DAYS, settings.TOTALS_RETENTION_DAYS)
    return now - min(OLDEST, timedelta(days=kept - 2))


def _identity(decision_id: str, token: DecisionToken) -> str:
    """Return the same hash for every id of a decision.

    Since token version 2, the id has more fields once the task is recorded.
    """
    if decision_id.startswith("1."):
        return hashlib.sha256(decision_id.encode()).hexdigest()
    said = json.dumps([token.environment, token.workload, token.at, token.nonce])
    return hashlib.sha256(said.encode()).hexdigest()


def _changes(
    environment: int,
    success: bool,
    token: DecisionToken,
    workload: GradedWorkload,
    cap: int | None,
    minute: datetime,
) -> tuple[Contribution | ArmContribution, ...]:
    """Return the changes that move the task from ungraded to success or failure in the sums of its minute."""
    key = RouteKey(
        environment,
        workload.pk,
        minute,
        token.rollout or "",
        -1 if token.stage is None else token.stage,
        token.arm,
        token.version,
        token.endpoint,
        token.rule,
        token.model,
    )
    cost, pair, cell = (getattr(token, name, None) for name in ("cost_nusd", "differing", "cell"))
    route = contributions.of_grade(key, success, cost=cost, cap=cap, pair=pair or None)
    if cell is None:
        return (route,)
    return route, contributions.of_graded_cell(key.of_arm(), cell, success)
