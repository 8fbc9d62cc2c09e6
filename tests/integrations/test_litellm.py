"""Pointsman in LiteLLM's real proxy with mock responses: one outcome per request, after LiteLLM's own retries.

It needs LiteLLM and the dependencies of its proxy: `make integrations` installs them.
"""

import asyncio
import inspect
import json
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_MASTER_KEY"] = "sk-test"
litellm = pytest.importorskip(
    "litellm", reason="LiteLLM is not installed here; `make integrations` installs it"
)
httpx = pytest.importorskip("httpx")

from pointsman import Pace, Router  # noqa: E402
from pointsman.integrations import litellm as integration  # noqa: E402
from pointsman.integrations.litellm import PointsmanHook  # noqa: E402
from pointsman.testing import FakeControlPlane  # noqa: E402

POLICY: dict[str, Any] = {
    "format": 1,
    "workload": "chat",
    "models": {"small": {"model": "small", "params": {"temperature": 0.5}}, "large": {"model": "large"}},
    "rules": [{"id": "long", "when": "request.prompt_tokens > 100", "use": "large"}],
    "default": "small",
    "fallback": ["large", "small"],
}
BROKEN = {**POLICY, "models": {"small": {"model": "broken"}, "large": {"model": "large"}}}
HOPELESS = {**POLICY, "models": {"small": {"model": "hopeless"}, "large": {"model": "large"}}}
ESCALATING = {
    **POLICY,
    "escalate": {"to": "large", "on": ["error"], "when": "response.confidence < 0.7"},
}


def deployment(name: str, model: str, answer: str) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, "api_key": "x", "mock_response": answer}}


CONFIGURATION = {
    "model_list": [
        deployment("small", "openai/gpt-4o-mini", "from the small one"),
        deployment("large", "openai/gpt-4o", "from the large one"),
        deployment("broken", "openai/gpt-4o-mini", "litellm.RateLimitError"),
        deployment("hopeless", "openai/gpt-4o-mini", "litellm.InternalServerError"),
    ],
    "router_settings": {"num_retries": 1, "fallbacks": [{"broken": ["large"]}]},
    "litellm_settings": {"callbacks": ["pointsman.integrations.litellm.hook"]},
}


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        yield plane


def asked(
    plane: FakeControlPlane,
    policy: dict[str, Any],
    talk: Callable[[Any], Coroutine[Any, Any, Any]],
    home: Path,
    *,
    scorer: Callable[[Any], float | None] | None = None,
    configuration: dict[str, Any] = CONFIGURATION,
) -> tuple[Any, list[dict[str, Any]]]:
    """Return (the result of the conversation with the proxy, the outcome buckets that the control plane received)."""
    proxy_server = pytest.importorskip(
        "litellm.proxy.proxy_server", reason="what LiteLLM's proxy imports is not installed here"
    )
    plane.serve("chat", policy)
    hook = integration.hook
    with Router(plane.url, plane.key, pace=Pace(first_poll_within=0, flush_every=0.05)) as router:
        assert router.wait_ready(20)
        hook._router, hook._scorer = router, scorer
        hook._pending.clear()
        (home / "config.yaml").write_text(json.dumps(configuration))

        async def run() -> Any:
            # Each test's proxy registers the hook again.
            litellm.logging_callback_manager._reset_all_callbacks()
            await proxy_server.initialize(config=str(home / "config.yaml"))
            transport = httpx.ASGITransport(proxy_server.app)
            headers = {"authorization": "Bearer sk-test"}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://proxy", headers=headers
            ) as client:
                found = await talk(client)
            for _ in range(200):  # LiteLLM logs after the response
                if not hook._pending:
                    break
                await asyncio.sleep(0.05)
            return found

        found = asyncio.run(run())
        assert not hook._pending
    return found, plane.buckets("chat")


async def complete(client: Any, text: str = "hi", model: str = "pointsman/chat", **more: Any) -> Any:
    headers = more.pop("headers", {})
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return await client.post("/chat/completions", json=body, headers=headers, timeout=60)


def test_it_sends_each_request_to_the_model_of_the_policy(plane: FakeControlPlane, tmp_path: Path) -> None:
    async def talk(client: Any) -> Any:
        return await complete(client), await complete(client, "x" * 1_000)

    (short, long), buckets = asked(plane, POLICY, talk, tmp_path)
    assert short.json()["choices"][0]["message"]["content"] == "from the small one"
    assert long.json()["choices"][0]["message"]["content"] == "from the large one"
    assert {(bucket["rule"], bucket["model"], bucket["tasks"]) for bucket in buckets} == {
        ("default", "small", 1),
        ("long", "large", 1),
    }
    assert all(bucket["cost_nusd"]["n"] == 1 and bucket["cost_nusd"]["sum"] > 0 for bucket in buckets)
    assert all(bucket["ungraded"] == 1 for bucket in buckets), "an answer alone is not a success"


def test_a_rescued_request_is_one_successful_task(plane: FakeControlPlane, tmp_path: Path) -> None:
    answer, (bucket,) = asked(plane, BROKEN, complete, tmp_path)
    assert answer.status_code == 200
    assert (bucket["tasks"], bucket["failures"], bucket["errors"]) == (1, 0, 0)
    assert (bucket["retries"], bucket["fallbacks"], bucket["attempts"], bucket["model"]) == (1, 1, 3, "large")


def test_a_failed_request_is_one_failure_with_its_kind(plane: FakeControlPlane, tmp_path: Path) -> None:
    answer, (bucket,) = asked(plane, HOPELESS, complete, tmp_path)
    assert answer.status_code == 500
    assert (bucket["tasks"], bucket["failures"], bucket["errors"]) == (1, 1, 1)
    assert bucket["errors_by_kind"] == {"server_error": 1}


def test_a_stream_is_recorded_at_its_end_and_returns_its_decision(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    async def talk(client: Any) -> Any:
        return await complete(client, stream=True)

    answer, (bucket,) = asked(plane, POLICY, talk, tmp_path)
    decision = answer.headers["x-pointsman-decision-id"]
    assert f'"pointsman_decision_id":"{decision}"' in answer.text.replace(": ", ":")
    assert (bucket["tasks"], bucket["attempts"]) == (1, 1)


def test_the_second_stage_replaces_an_answer_before_it_is_sent(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    answer, (bucket,) = asked(plane, ESCALATING, complete, tmp_path, scorer=unsure)
    assert answer.json()["choices"][0]["message"]["content"] == "from the large one"
    assert (bucket["escalations"], bucket["attempts"], bucket["model"]) == (1, 2, "large")
    assert bucket["cost_nusd"]["n"] == 1


def unsure(response: Any) -> float:
    return 0.2 if "small" in response.choices[0].message.content else 0.9


@pytest.mark.parametrize(
    ("path", "body", "sort"),
    [
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}, "message"),
        ("/v1/responses", {"input": "hi"}, "response"),
        ("/v1/completions", {"prompt": "hi"}, "text_completion"),
    ],
)
def test_the_second_stage_leaves_the_answers_of_other_apis(
    plane: FakeControlPlane, tmp_path: Path, path: str, body: dict[str, Any], sort: str
) -> None:
    """The stronger model is asked for a chat completion, which the clients of these APIs could not read."""

    async def talk(client: Any) -> Any:
        return await client.post(path, json={"model": "pointsman/chat", **body}, timeout=60)

    answer, (bucket,) = asked(plane, ESCALATING, talk, tmp_path, scorer=lambda _: 0.2)
    found = answer.json()
    assert sort in (found.get("type"), found.get("object")), found
    assert (bucket["tasks"], bucket["escalations"], bucket["model"]) == (1, 0, "small")


def test_a_rescued_request_that_is_scored_names_the_model_that_answered(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    escalating = {**BROKEN, "escalate": ESCALATING["escalate"]}
    answer, (bucket,) = asked(plane, escalating, complete, tmp_path, scorer=unsure)
    assert answer.json()["choices"][0]["message"]["content"] == "from the large one"
    assert (bucket["model"], bucket["models"]) == ("large", {"small": 1, "large": 1})
    assert (bucket["attempts"], bucket["retries"], bucket["fallbacks"], bucket["escalations"]) == (3, 1, 1, 0)


def test_a_second_stage_that_fails_leaves_the_first_answer(plane: FakeControlPlane, tmp_path: Path) -> None:
    failing = {**ESCALATING, "models": {"small": {"model": "small"}, "large": {"model": "hopeless"}}}
    answer, (bucket,) = asked(plane, failing, complete, tmp_path, scorer=unsure)
    assert answer.json()["choices"][0]["message"]["content"] == "from the small one"
    assert (bucket["model"], bucket["models"]) == ("small", {"small": 1, "large": 1})
    assert (bucket["attempts"], bucket["escalations"], bucket["retries"], bucket["errors"]) == (3, 1, 1, 0)
    assert bucket["cost_nusd"]["n"] == 1


def test_an_answer_whose_scorer_fails_is_recorded_with_its_cost(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    def failing(_: Any) -> float:
        raise ValueError("no logprobs")

    accepting = {**ESCALATING["escalate"], "missing_confidence": "accept"}
    escalating = {**BROKEN, "escalate": accepting}
    answer, (bucket,) = asked(plane, escalating, complete, tmp_path, scorer=failing)
    assert answer.json()["choices"][0]["message"]["content"] == "from the large one"
    assert (bucket["model"], bucket["attempts"], bucket["cost_nusd"]["n"]) == ("large", 3, 1)


def test_the_second_stage_asks_only_models_that_the_proxy_has(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    absent = {**ESCALATING, "models": {"small": {"model": "small"}, "large": {"model": "absent"}}}
    answer, (bucket,) = asked(plane, absent, complete, tmp_path, scorer=unsure)
    assert answer.json()["choices"][0]["message"]["content"] == "from the small one"
    assert (bucket["model"], bucket["escalations"], bucket["attempts"]) == ("small", 0, 1)


def test_the_second_stage_sends_its_own_parameters_and_the_clients(
    plane: FakeControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the first stage: a parameter of the request overrides the policy's."""
    sent: list[dict[str, Any]] = []
    call = integration._call

    async def noted(model: str, data: dict[str, Any]) -> Any:
        sent.append(data)
        return await call(model, data)

    monkeypatch.setattr(integration, "_call", noted)
    models = {
        "small": {"model": "small", "params": {"temperature": 0.5, "top_p": 0.1}},
        "large": {"model": "large", "params": {"top_p": 0.9, "max_tokens": 50}},
    }

    async def talk(client: Any) -> Any:
        return await complete(client, max_tokens=7)

    asked(plane, {**ESCALATING, "models": models}, talk, tmp_path, scorer=unsure)
    (found,) = sent
    assert {name: found.get(name) for name in ("temperature", "top_p", "max_tokens")} == {
        "temperature": None,
        "top_p": 0.9,
        "max_tokens": 7,
    }


class GoogleLike(BaseHTTPRequestHandler):
    """A provider with Google's protocol that answers "hello"."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        content = {"role": "model", "parts": [{"text": "hello"}]}
        usage = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}
        candidate = {"content": content, "finishReason": "STOP", "index": 0}
        answer = json.dumps({"candidates": [candidate], "usageMetadata": usage})
        stream = "streamGenerateContent" in self.path
        body = f"data: {answer}\r\n\r\n" if stream else answer
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if stream else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def google() -> Iterator[str]:
    """The address of a provider with Google's protocol."""
    with ThreadingHTTPServer(("127.0.0.1", 0), GoogleLike) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent?alt=sse"])
def test_a_request_in_googles_format_is_routed_and_recorded(
    plane: FakeControlPlane, tmp_path: Path, google: str, method: str
) -> None:
    parameters = {"model": "gemini/gemini-2.0-flash", "api_key": "x", "api_base": google}
    models = [{"model_name": name, "litellm_params": parameters} for name in ("small", "large")]

    async def talk(client: Any) -> Any:
        body = {"contents": [{"role": "user", "parts": [{"text": "x" * 1_000}]}]}
        return await client.post(f"/v1beta/models/pointsman/chat:{method}", json=body, timeout=60)

    configuration = {**CONFIGURATION, "model_list": models}
    answer, (bucket,) = asked(plane, POLICY, talk, tmp_path, configuration=configuration)
    assert answer.status_code == 200 and "hello" in answer.text, answer.text
    assert (bucket["rule"], bucket["model"], bucket["tasks"]) == ("long", "large", 1)


@pytest.mark.parametrize("error", ["HTTPException", "BudgetExceededError"])
def test_what_the_proxy_itself_refuses_is_no_failure_of_the_model(
    plane: FakeControlPlane, tmp_path: Path, error: str
) -> None:
    """Otherwise one client over its limit could roll a rollout back."""
    over = {
        "HTTPException": pytest.importorskip("fastapi").HTTPException(429, "over its limit"),
        "BudgetExceededError": litellm.BudgetExceededError(current_cost=2.0, max_budget=1.0),
    }

    class Limit(PointsmanHook):
        async def async_pre_call_hook(
            self, user_api_key_dict: Any, cache: Any, data: Any, call_type: str
        ) -> Any:
            raise over[error]

    async def talk(client: Any) -> Any:
        litellm.callbacks.append(Limit(workloads={}))
        return await complete(client)

    answer, buckets = asked(plane, POLICY, talk, tmp_path)
    assert 400 <= answer.status_code < 500, answer.text
    assert buckets == []


def test_no_deployment_left_is_a_failure(plane: FakeControlPlane) -> None:
    from litellm.types.router import RouterRateLimitError

    error = RouterRateLimitError(
        model="small", cooldown_time=5, enable_pre_call_checks=True, cooldown_list=[]
    )
    plane.serve("chat", POLICY)
    with Router(plane.url, plane.key, pace=Pace(first_poll_within=0, flush_every=0.05)) as router:
        assert router.wait_ready(20)
        hook, data = PointsmanHook(router), {"model": "pointsman/chat", "messages": [], "metadata": {}}
        hook.choose(data)
        asyncio.run(hook.async_post_call_failure_hook(data, error, None))
    (bucket,) = plane.buckets("chat")
    assert (bucket["failures"], bucket["errors_by_kind"]) == (1, {"rate_limited": 1})


def test_a_model_behind_a_pattern_is_asked(plane: FakeControlPlane, tmp_path: Path) -> None:
    wild = deployment("openai/*", "openai/*", "from some model")
    patterns = {**CONFIGURATION, "model_list": [wild]}
    models = {"small": {"model": "openai/gpt-4o-mini"}, "large": {"model": "openai/gpt-4o"}}
    answer, (bucket,) = asked(plane, {**POLICY, "models": models}, complete, tmp_path, configuration=patterns)
    assert answer.status_code == 200, answer.text
    assert (bucket["rule"], bucket["model"]) == ("default", "small")


def test_an_alias_of_the_proxy_is_a_model_of_the_policy(plane: FakeControlPlane, tmp_path: Path) -> None:
    settings = {"num_retries": 1, "model_group_alias": {"quick": "small"}}
    models = {"small": {"model": "quick"}, "large": {"model": "large"}}
    answer, (bucket,) = asked(
        plane, {**POLICY, "models": models}, complete, tmp_path,
        configuration={**CONFIGURATION, "router_settings": settings},
    )  # fmt: skip
    assert answer.json()["choices"][0]["message"]["content"] == "from the small one"
    assert (bucket["rule"], bucket["model"], bucket["attempts"]) == ("default", "small", 1)


def test_the_first_request_of_a_process_waits_for_its_policy(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a stored policy it used to be refused as an unknown model."""
    plane.serve("chat", POLICY)
    monkeypatch.setenv("POINTSMAN_URL", plane.url)
    monkeypatch.setenv("POINTSMAN_KEY", plane.key)
    hook, data = PointsmanHook(workloads={}), {"model": "pointsman/chat", "messages": []}
    asyncio.run(hook.async_pre_call_hook(None, None, data, "acompletion"))
    hook.router.close()
    assert data["model"] == "small"


def test_a_wrong_key_leaves_the_routers_default(plane: FakeControlPlane) -> None:
    with Router(plane.url, "pmr_wrong", defaults={"chat": "large"}) as router:
        hook, data = PointsmanHook(router, workloads={}), {"model": "pointsman/chat", "messages": []}
        asyncio.run(hook.async_pre_call_hook(None, None, data, "acompletion"))
    assert data["model"] == "large"


def test_requests_wait_only_at_the_start(plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class NotReady:
        ready = False

        def wait_ready(self, timeout: float) -> bool:
            waits.append(timeout)
            return False

        def decide(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no")

    hook = PointsmanHook(NotReady(), workloads={})  # type: ignore[arg-type]
    data: dict[str, Any] = {"model": "pointsman/chat", "messages": []}
    asyncio.run(hook.async_pre_call_hook(None, None, data, "acompletion"))
    asyncio.run(hook.async_pre_call_hook(None, None, {**data, "model": "large"}, "acompletion"))
    hook._since -= integration.READY_WITHIN_S
    asyncio.run(hook.async_pre_call_hook(None, None, data, "acompletion"))
    assert len(waits) == 1 and 0 < waits[0] <= 5


def test_a_grade_in_a_header_is_assigned_to_its_task(plane: FakeControlPlane, tmp_path: Path) -> None:
    async def talk(client: Any) -> Any:
        first = await complete(client)
        await complete(client, headers={"pointsman-grade": f"{first.headers['x-pointsman-decision-id']}=1"})
        return first.headers["x-pointsman-decision-id"]

    decision, _ = asked(plane, POLICY, talk, tmp_path)
    assert [(word["decision_id"], word["kind"], word["success"]) for word in plane.feedback] == [
        (decision, "downstream", True)
    ]


def test_a_model_that_is_not_a_workload_is_passed_through(plane: FakeControlPlane, tmp_path: Path) -> None:
    async def talk(client: Any) -> Any:
        return await complete(client, model="large"), await complete(client, model="pointsman/nobody")

    (plain, unknown), buckets = asked(plane, POLICY, talk, tmp_path)
    assert plain.status_code == 200 and "x-pointsman-decision-id" not in plain.headers
    assert unknown.status_code == 400 and "pointsman/nobody" in unknown.text
    assert buckets == []


def test_litellm_finds_the_hooks() -> None:
    """LiteLLM looks up `async_pre_call_hook` in `vars(type(callback))`; the other hooks must override its class's."""
    from litellm.integrations.custom_logger import CustomLogger

    ours = {name for name in vars(PointsmanHook) if name.startswith("async_")}
    assert "async_pre_call_hook" in ours
    for name in ours:
        theirs = inspect.signature(getattr(CustomLogger, name)).parameters
        assert list(inspect.signature(getattr(PointsmanHook, name)).parameters) == list(theirs), name


def test_a_disconnect_is_cleaned_up_and_its_task_stays_unfinished(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.serve("chat", POLICY)
    with Router(plane.url, plane.key, pace=Pace(first_poll_within=0, flush_every=0.05)) as router:
        assert router.wait_ready(20)
        hook = PointsmanHook(router)
        hook.choose({"model": "pointsman/chat", "messages": [], "stream": True})
        monkeypatch.setattr(integration, "PENDING_FOR_S", -1.0)
        hook.sweep()
    assert (hook.swept, hook._pending) == (1, {})
    assert plane.buckets("chat") == []


def test_a_router_that_fails_does_not_fail_the_request() -> None:
    class Broken:
        def decide(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no")

    hook = PointsmanHook(Broken())  # type: ignore[arg-type]
    data = {"model": "pointsman/chat", "messages": []}
    assert asyncio.run(hook.async_pre_call_hook(None, None, data, "acompletion")) is None
    assert data["model"] == "pointsman/chat"


def test_litellms_own_calls_are_not_recorded() -> None:
    hook = PointsmanHook(workloads={})
    payload = {"metadata": {"is_silent_experiment": True}}
    asyncio.run(
        hook.async_log_success_event({"standard_logging_object": payload, "metadata": {}}, None, None, None)
    )
    assert integration._internal({"metadata": {"internal_call_origin": "judge"}})
