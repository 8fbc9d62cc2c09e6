"""An OpenFeature provider that decides in the process, without a request.

    from openfeature import api
    from pointsman.integrations.openfeature import PointsmanProvider

    api.set_provider(PointsmanProvider(Router(url, key)))
    details = api.get_client().get_string_details("support-summaries", "fallback-model", context)
    details.value                               # the model to call
    details.flag_metadata["decision_id"]        # for feedback

A workload is a flag: a string (the model), or an object (`model`, `params`). A context's targeting key is the
workload's unit (a conversation, a user); `prompt_tokens`, `endpoint` and the policy's other inputs are its attributes.

`track("human_review", context, details)` sends feedback: `details.attributes` contain the task's `decision_id` and
optionally `success`; `details.value` is a score from 0 to 1.

Limits: OpenFeature has evaluations but no outcomes. Record a task's cost, latency and success with
`Router.record` and the decision from this provider's `decide`. A policy's second stage needs
`Decision.next`, which flags do not have. Evaluating a workload as a boolean or a number is a type mismatch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

try:
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.event import ProviderEvent, ProviderEventDetails
    from openfeature.exception import FlagNotFoundError, ProviderNotReadyError, TypeMismatchError
    from openfeature.flag_evaluation import FlagResolutionDetails, Reason
    from openfeature.provider import AbstractProvider, Metadata
    from openfeature.track import TrackingEventDetails
except ImportError as error:
    raise ImportError("OpenFeature needs its extra: pip install 'pointsman[openfeature]'") from error

from pointsman.decision import Decision
from pointsman.integrations.flags import inputs_of, metadata_of, object_of, reason_of, units_of
from pointsman.router import FEEDBACK_KINDS, Router

__all__ = ["PointsmanProvider"]

STALE_AFTER_S = 120.0
_CHECK_EVERY_S = 5.0


class PointsmanProvider(AbstractProvider):
    """An OpenFeature provider for a `Router`, which the caller must close unless `closes_router` is set.

    ready_within   how many seconds `initialize` waits for the first policy
    stale_after    seconds without contact to the control plane after which the provider becomes STALE
    """

    def __init__(
        self,
        router: Router,
        *,
        ready_within: float = 10.0,
        stale_after: float = STALE_AFTER_S,
        closes_router: bool = False,
    ) -> None:
        super().__init__()
        self.router = router
        self._ready_within, self._stale_after, self._closes_router = ready_within, stale_after, closes_router
        self._stopped = threading.Event()
        self._watch: threading.Thread | None = None

    # --- life cycle -----------------------------------------------------------------------------------------

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="Pointsman")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Wait for a policy. Raises `ProviderNotReadyError` if none arrives."""
        if not self.router.wait_ready(self._ready_within):
            raise ProviderNotReadyError(
                f"There is no policy after {self._ready_within:g} s: {self.router.status()}"
            )
        self._stopped.clear()
        self._watch = threading.Thread(
            target=self._watch_staleness, name="pointsman-openfeature", daemon=True
        )
        self._watch.start()

    def shutdown(self) -> None:
        """Stop watching for staleness; close the router if `closes_router` is set."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.join(1.0)
        if self._closes_router:
            self.router.close()

    def _watch_staleness(self) -> None:
        """Notify OpenFeature when the policy becomes stale, and when it is fresh again."""
        stale = False
        while not self._stopped.wait(min(_CHECK_EVERY_S, self._stale_after / 2)):
            age = self.router.status().get("staleness_s")
            is_stale = age is not None and age > self._stale_after
            if is_stale != stale:
                stale = is_stale
                event = ProviderEvent.PROVIDER_STALE if stale else ProviderEvent.PROVIDER_READY
                message = f"no contact with the control plane for {age:.0f} s" if stale else "fresh again"
                if hasattr(self, "_on_emit"):
                    self._on_emit(self, event, ProviderEventDetails(message=message))

    # --- evaluation -----------------------------------------------------------------------------------

    def decide(self, flag_key: str, evaluation_context: EvaluationContext | None = None) -> Decision:
        """Return the decision, for `Router.record`. Raises `FlagNotFoundError` for an unknown workload."""
        context = evaluation_context or EvaluationContext()
        attributes: Mapping[str, Any] = context.attributes
        units = units_of(context.targeting_key, attributes)
        decision = self.router.decide(flag_key, inputs_of(attributes), units)
        if not decision.model:
            raise FlagNotFoundError(f"This environment serves no workload {flag_key!r}.")
        return decision

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Return the model's catalogue name."""
        decision = self.decide(flag_key, evaluation_context)
        return _details(decision, decision.model)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[Any] | Mapping[str, Any],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        """Return `{"model": …, "params": {…}}`."""
        decision = self.decide(flag_key, evaluation_context)
        return _details(decision, object_of(decision))

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Raise `TypeMismatchError`: no workload is a boolean."""
        _mismatch(flag_key)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Raise `TypeMismatchError`: no workload is a number."""
        _mismatch(flag_key)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Raise `TypeMismatchError`: no workload is a number."""
        _mismatch(flag_key)

    # --- tracking -------------------------------------------------------------------------------------

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Send feedback on an earlier task. Events with other names are ignored, and so are a `success` that is
        neither true nor false, and a value that is not a number from 0 to 1.
        """
        if tracking_event_name not in FEEDBACK_KINDS or tracking_event_details is None:
            return
        given = tracking_event_details.attributes
        decision_id, success = given.get("decision_id"), given.get("success")
        grade = bool(success) if success in (0, 1) else None
        score = _score(tracking_event_details.value)
        if isinstance(decision_id, str) and (grade is not None or score is not None):
            self.router.feedback(decision_id, tracking_event_name, success=grade, score=score)


def _score(value: object) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if known else None  # type: ignore[arg-type]


def _details(decision: Decision, value: Any) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(
        value=value,
        variant=decision.alias,
        reason=Reason(reason_of(decision)),
        flag_metadata=metadata_of(decision),
    )


def _mismatch(flag_key: str) -> NoReturn:
    raise TypeMismatchError(
        f"The workload {flag_key!r} is a string (the model) or an object (model and params)."
    )
