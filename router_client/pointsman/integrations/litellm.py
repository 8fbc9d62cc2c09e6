"""Use Pointsman in LiteLLM's proxy with one line of configuration.

    litellm_settings:
      callbacks: ["pointsman.integrations.litellm.hook"]

A request for the model `pointsman/<workload>` gets the model that the workload's policy chooses, by the names of
the proxy's `model_list`, which the catalogue uses too. One outcome is recorded for each request, after LiteLLM's own
retries and fallbacks; each attempt's cost is in it.

environment
    POINTSMAN_URL, POINTSMAN_KEY   the control plane's address and a router key
    POINTSMAN_STORE                file for the last known good; without it the first requests after a start wait for
                                   a policy, at most 5 s, and are then refused as an unknown model
    POINTSMAN_LITELLM_MODELS       `name=workload,…`: further model names for workloads, in addition to `pointsman/…`
    POINTSMAN_LITELLM_SCORER       `package.module:function`, from a response to a confidence of 0 … 1 or None. With it
                                   the policy's second stage runs on chat completions that are not streamed

a request may contain
    metadata.pointsman   {"endpoint": …, "conversation": …, "user": …, "tenant": …, "attributes": {…}}, all optional
    header pointsman-grade: <decision id>=1 (or 0)   feedback on an earlier task, of the kind `downstream`
    header pointsman-endpoint, pointsman-conversation

a response contains
    header x-pointsman-decision-id, for feedback, also for streams

Limits: LiteLLM controls retries and fallbacks, so configure `fallbacks` and `num_retries` there. A stream cannot be
escalated, because its first words are sent before its confidence is known. If a client disconnects in the middle of a
stream, the task was decided but never finishes, and the control plane counts it as unfinished.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from pointsman import Attempt, ConfigurationError, Router
from pointsman.decision import Decision
from pointsman.integrations.litellm_request import (
    KEY,
    given_in,
    group_of,
    headers_of,
    inputs_of,
    metadata_of,
    units_of,
)
from pointsman.integrations.outside import add_attempt, finish, turn_to

__all__ = ["PointsmanHook", "hook"]

log = logging.getLogger("pointsman.litellm")

PREFIX = "pointsman/"
CALLS = frozenset(
    {"completion", "acompletion", "text_completion", "atext_completion", "responses", "aresponses",
     "anthropic_messages", "generate_content", "agenerate_content", "generate_content_stream",
     "agenerate_content_stream"}
)  # fmt: skip
# The calls whose answer the second stage may replace: it asks the stronger model for a chat completion.
CHAT = frozenset({"completion", "acompletion"})
READY_WITHIN_S = 5.0  # how long the first requests of a process wait for its first policy
PENDING_FOR_S = 900.0  # after this, no outcome of a request is expected

# LiteLLM's exceptions (litellm/exceptions.py) as the policy format's kinds.
_KINDS = {
    "Timeout": "timeout", "APITimeoutError": "timeout", "RateLimitError": "rate_limited",
    "APIConnectionError": "connection", "InternalServerError": "server_error",
    "ServiceUnavailableError": "server_error",
    "BadGatewayError": "server_error", "ContentPolicyViolationError": "refusal", "NotFoundError": "unknown_model",
}  # fmt: skip

# What the proxy and its guardrails raise before a model is asked (FastAPI's, litellm/proxy/_types.py, exceptions.py).
_REFUSALS = frozenset(
    {"HTTPException", "ProxyException", "BudgetExceededError", "GuardrailRaisedException", "BlockedPiiEntityError",
     "RejectedRequestError", "ModifyResponseException"}
)  # fmt: skip


@dataclass(slots=True)
class Pending:
    """A request that was decided and has not ended yet."""

    decision: Decision
    since: float
    streamed: bool
    scored: bool  # the answer is scored before it is returned, so the success hook records it
    ours: frozenset[str]  # parameters added to the request for the chosen model, which the client did not set
    served: str = ""  # the last model that answered, by its name in `model_list`
    chosen: str = ""  # the model that `next` chose, until an attempt of it has ended
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: bool = False

    @property
    def asked(self) -> bool:
        """Whether a model was asked, as far as LiteLLM has reported it."""
        return bool(self.served or self.decision.steps.attempts)

    def turn_to(self, model: str) -> None:
        """Note the model that LiteLLM asked. It is no retry if `next` has just chosen it."""
        chosen, self.chosen = self.chosen, ""
        if model != chosen:
            turn_to(self.decision, model)

    def enter(self, model: str, attempt: Attempt) -> None:
        """Add a finished attempt of a model."""
        if self.decision.steps.done is None:
            self.turn_to(model)
            add_attempt(self.decision, attempt)


class PointsmanHook(CustomLogger):  # type: ignore[misc]  # typed where LiteLLM is installed
    """LiteLLM's callback. Never raises into a request: if Pointsman cannot decide, the request continues unchanged."""

    def __init__(
        self,
        router: Router | None = None,
        *,
        workloads: Mapping[str, str] | None = None,
        scorer: Callable[[Any], float | None] | None = None,
    ) -> None:
        super().__init__()
        self._router = router
        self._workloads = dict(workloads) if workloads is not None else _workloads_from_environment()
        self._scorer = scorer
        self._scorer_path = os.environ.get("POINTSMAN_LITELLM_SCORER", "") if scorer is None else ""
        self._since = time.monotonic()  # when the router was given or created
        self._pending: dict[str, Pending] = {}
        self._lock = threading.Lock()
        self.swept = 0  # requests whose outcome was never reported

    # --- before the call ------------------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | None:
        """Choose the model. LiteLLM looks for this method on the registered class itself."""
        try:
            if call_type in CALLS and self._workload(data.get("model")) is not None:
                await self._wait_ready()
            return self.choose(data, call_type)
        except Exception:
            log.exception("a request was not routed by Pointsman; it continues unchanged")
            return None

    def choose(self, data: dict[str, Any], call_type: str = "acompletion") -> dict[str, Any] | None:
        """Set the request's model as the policy decides; return None for a request without a workload."""
        if KEY in metadata_of(data):  # already chosen: a request may pass a hook twice
            return None
        workload = self._workload(data.get("model"))
        self._take_grades(data)
        if workload is None or call_type not in CALLS:
            return None
        self.sweep()
        given = given_in(data)
        request, units = inputs_of(data, given), units_of(data, given)
        decision = self.router.decide(workload, request, units, available=_known_models())
        if not decision.model:  # no policy and no default: LiteLLM reports the requested name as unknown
            return None
        data["model"] = decision.model
        added = _parameters(decision.params, decision.timeouts.get("attempt_ms"))
        ours = frozenset(added.keys() - data.keys())
        for name in ours:
            data[name] = added[name]
        streamed = bool(data.get("stream"))
        scored = not streamed and call_type in CHAT and self.scorer is not None
        metadata = metadata_of(data)
        metadata[KEY] = decision.decision_id
        with self._lock:
            self._pending[decision.decision_id] = Pending(decision, time.monotonic(), streamed, scored, ours)
        return data

    # --- attempts -------------------------------------------------------------------------------------

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """Record a failed attempt. LiteLLM may retry or fall back, so this is not the end of the request."""
        pending = self._of(request_data)
        if pending is not None:
            with pending.lock:
                # A failed call counts as free, as in LiteLLM's own logs.
                pending.enter(group_of(request_data), Attempt(ok=False, error=_kind(exception), cost_nusd=0))

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """Note which model answered: after LiteLLM's own fallback it is not the chosen one."""
        pending = self._of(request_data)
        if pending is not None:
            pending.served = group_of(request_data)

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Record the outcome of an answered call or a finished stream, unless its answer is still to be scored."""
        payload = kwargs.get("standard_logging_object") or {}
        if _internal(payload):
            return
        pending = self._of(kwargs)
        if pending is not None and not pending.scored:
            self._answered(pending, payload)
            self._end(pending)

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Run the policy's second stage on an answer that was not returned yet."""
        pending = self._of(data)
        if pending is None or not pending.scored:
            return response
        try:
            return await self._second_stage(pending, data, response)
        except Exception:
            log.exception("the second stage failed; the first answer is used")
            return response
        finally:
            self._end(pending)

    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Exception, user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:  # fmt: skip
        """Record the failure of a request after all attempts have failed.

        What the proxy itself refused, such as a client over its limit, says nothing about the model. It counts as
        unfinished.
        """
        pending = self._of(request_data)
        if pending is None:
            return
        if not pending.asked and _is_refusal(original_exception):
            with self._lock:
                self._pending.pop(pending.decision.decision_id, None)
            return
        self._end(pending, error=_kind(original_exception))

    # --- answers --------------------------------------------------------------------------------------

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any,
        request_headers: dict[str, str] | None = None, litellm_call_info: dict[str, Any] | None = None,
    ) -> dict[str, str] | None:  # fmt: skip
        """Add the decision's id, which identifies the task in feedback."""
        found = metadata_of(data).get(KEY)
        return {"x-pointsman-decision-id": str(found)} if found else None

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Pass on the stream, with the decision's id in its last chunk."""
        found, pending = metadata_of(request_data).get(KEY), self._of(request_data)
        async for chunk in response:
            if pending is not None and not pending.served:
                pending.served = group_of(request_data)
            choices = getattr(chunk, "choices", None)
            if found and choices and getattr(choices[0], "finish_reason", None):
                chunk.pointsman_decision_id = found
            yield chunk

    # --- internals ---------------------------------------------------------------------------------------

    @property
    def router(self) -> Router:
        """The process's router, created at the first request: configuration may be read before the network is up."""
        if self._router is None:
            with self._lock:
                if self._router is None:
                    self._since = time.monotonic()
                    self._router = Router(
                        os.environ.get("POINTSMAN_URL", ""),
                        os.environ.get("POINTSMAN_KEY", ""),
                        store=os.environ.get("POINTSMAN_STORE") or None,
                    )
        return self._router

    @property
    def scorer(self) -> Callable[[Any], float | None] | None:
        """The function from a response to a confidence, as configured in the environment."""
        if self._scorer is None and self._scorer_path:
            module, _, name = self._scorer_path.partition(":")
            self._scorer = getattr(importlib.import_module(module), name)
            self._scorer_path = ""
        return self._scorer

    async def _wait_ready(self) -> None:
        """Wait for the first policy of a process that has just started."""
        router = self.router
        ends = self._since + READY_WITHIN_S
        if time.monotonic() < ends and not router.ready:
            with suppress(ConfigurationError):  # logged by the router; its defaults are used
                # There are few threads: count the time in which a request waits for one.
                await asyncio.to_thread(lambda: router.wait_ready(max(0.0, ends - time.monotonic())))

    def sweep(self) -> None:
        """Forget requests that never ended because the client disconnected. They count as unfinished."""
        oldest = time.monotonic() - PENDING_FOR_S
        with self._lock:
            # Sorted by start time, so the first recent one ends the search.
            while self._pending:
                found, pending = next(iter(self._pending.items()))
                if pending.since > oldest:
                    return
                del self._pending[found]
                self.swept += 1

    def _workload(self, model: Any) -> str | None:
        if not isinstance(model, str):
            return None
        return self._workloads.get(model) or (
            model.removeprefix(PREFIX) if model.startswith(PREFIX) else None
        )

    def _of(self, data: Mapping[str, Any]) -> Pending | None:
        found = metadata_of(data).get(KEY)
        return self._pending.get(found) if found else None

    def _answered(self, pending: Pending, payload: Mapping[str, Any]) -> None:
        with pending.lock:
            pending.enter(
                str(payload.get("model_group") or payload.get("model") or pending.decision.model),
                Attempt(cost_nusd=_cost(payload), latency_ms=_latency_ms(payload)),
            )

    async def _second_stage(self, pending: Pending, data: dict[str, Any], response: Any) -> Any:
        decision, model = pending.decision, pending.decision.model
        request = {name: value for name, value in data.items() if name not in pending.ours}
        while True:
            hidden = getattr(response, "_hidden_params", None) or {}
            attempt = Attempt(confidence=self._confidence(response), cost_nusd=_cost(hidden))
            with pending.lock:
                pending.turn_to(pending.served or model)
                answered = decision.steps.route
                step = decision.next(attempt, available=_known_models())
                if step.done:
                    return response
                model = pending.chosen = step.model
                pending.served = ""
            try:
                # As in the first stage, the client's parameters override the policy's.
                response = await _call(model, {**_parameters(step.params, step.timeout_ms), **request})
            except Exception as error:
                log.warning("the second stage failed; the answer so far is used: %s", error)
                with pending.lock:
                    if pending.chosen:  # no attempt was reported
                        pending.enter(model, Attempt(ok=False, error=_kind(error), cost_nusd=0))
                    decision.steps.route = answered
                return response

    def _confidence(self, response: Any) -> float | None:
        try:
            return self.scorer(response) if self.scorer is not None else None
        except Exception:  # The policy's `missing_confidence` decides.
            log.exception("the scorer failed; the answer's confidence is unknown")
            return None

    def _end(self, pending: Pending, error: str | None = None) -> None:
        with pending.lock:
            if pending.ended:
                return
            pending.ended = True
            finish(pending.decision, answered=error is None)
        with self._lock:
            self._pending.pop(pending.decision.decision_id, None)
        # An answer is not a success; feedback may grade it. A failure is certain.
        self.router.record(pending.decision, False if error else None, error=error)

    def _take_grades(self, data: Mapping[str, Any]) -> None:
        for word in filter(None, headers_of(data).get("pointsman-grade", "").split(",")):
            found, _, grade = word.strip().partition("=")
            if found and grade in ("0", "1"):
                self.router.feedback(found, "downstream", success=grade == "1")


def _workloads_from_environment() -> dict[str, str]:
    pairs = (
        entry.partition("=") for entry in os.environ.get("POINTSMAN_LITELLM_MODELS", "").split(",") if entry
    )
    return {name.strip(): workload.strip() for name, _, workload in pairs if workload.strip()}


def _known_models() -> frozenset[str] | None:
    """Return the names that the proxy can call; None outside a proxy, and if they cannot be listed."""
    import sys

    server = sys.modules.get("litellm.proxy.proxy_server")
    router = getattr(server, "llm_router", None)
    names = frozenset(getattr(router, "model_names", None) or ())
    if not names or any("*" in name for name in names):  # `openai/*`: any model of a provider
        return None
    return names | frozenset(getattr(router, "model_group_alias", None) or ())


async def _call(model: str, data: dict[str, Any]) -> Any:
    """Call another model for the same request, through the proxy's router."""
    import sys

    router = getattr(sys.modules.get("litellm.proxy.proxy_server"), "llm_router", None)
    if router is None:
        import litellm

        return await litellm.acompletion(**{**data, "model": model})
    return await router.acompletion(**{**data, "model": model})


def _internal(payload: Mapping[str, Any]) -> bool:
    """Return whether LiteLLM made the call for itself: a silent experiment, a classifier or a judge."""
    metadata = payload.get("metadata") or {}
    return bool(metadata.get("is_silent_experiment") or metadata.get("internal_call_origin"))


def _is_refusal(error: Exception) -> bool:
    """Return whether the proxy refused the request itself: a limit or a budget of its client, or a guardrail."""
    return not _REFUSALS.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _kind(error: Exception) -> str:
    for kind in type(error).__mro__:
        if kind.__name__ in _KINDS:
            return _KINDS[kind.__name__]
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return {408: "timeout", 429: "rate_limited"}.get(status, "server_error" if status >= 500 else "error")
    return "error"


def _parameters(params: Mapping[str, Any], timeout_ms: int | None) -> dict[str, Any]:
    """Return what the policy adds to a request: its parameters for the model, and the time limit in seconds."""
    limit = {} if timeout_ms is None else {"timeout": timeout_ms / 1_000}
    return {**limit, **params}


def _cost(reported: Mapping[str, Any]) -> int | None:
    """Return the cost in nano-USD. LiteLLM reports 0 for a cached answer, but also for a model without a price."""
    cost = _nusd(reported.get("response_cost"))
    return cost if cost or reported.get("cache_hit") else None


def _nusd(dollars: Any) -> int | None:
    return round(dollars * 1e9) if isinstance(dollars, (int, float)) and dollars >= 0 else None


def _latency_ms(payload: Mapping[str, Any]) -> float | None:
    start, end = payload.get("startTime"), payload.get("endTime")
    if isinstance(start, (int, float)) and isinstance(end, (int, float)) and end >= start:
        return float(end - start) * 1_000
    return None


hook = PointsmanHook()
