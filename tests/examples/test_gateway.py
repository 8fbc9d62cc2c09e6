"""examples/gateway.py on real sockets, with a fake provider and a control plane."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pointsman import Pace, Router
from pointsman.reporting.histogram import Histogram, upper_edge
from pointsman.testing import FakeControlPlane
from pointsman.token import DecisionToken
from tests.client.watching import eventually
from tests.examples.conftest import Serve, example

POLICY = """
format: 1
workload: tickets
models:
  small: {model: small, params: {temperature: 0}}
  large: {model: large}
default: small
escalate: {to: large, on: [invalid_output], when: response.confidence < 0.7}
retry: {attempts: 1, on: [rate_limited], backoff_ms: 1}
fallback: [large]
"""
PRICES: dict[str, dict[str, int | None]] = {
    "small": {"input": 150_000_000, "output": 600_000_000, "cache_read": 75_000_000},
    "large": {"input": 3_000_000_000, "output": 15_000_000_000},
}
GOOD, BAD = '{"subject": "fire", "priority": "high"}', '{"subject": "fire"}'
JSON_WANTED = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"schema": {"required": ["subject", "priority"]}},
    }
}


@dataclass
class Provider:
    """Gives each model's configured answers in turn; the last one is repeated."""

    says: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    delay_s: float = 0.0

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        turns = self.says[body["model"]]
        answer = turns.pop(0) if len(turns) > 1 else turns[0]
        await asyncio.sleep(self.delay_s)
        if isinstance(answer, dict):
            return JSONResponse(answer)
        if isinstance(answer, str):
            return Response(answer, media_type="text/event-stream")
        if isinstance(answer, int):
            return JSONResponse({"error": {"message": f"HTTP {answer}"}}, answer)
        text, logprob = answer
        usage = {
            "prompt_tokens": 1_000,
            "completion_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        logprobs = None if logprob is None else {"content": [{"token": "x", "logprob": logprob}] * 3}
        if body.get("stream"):
            return StreamingResponse(stream(text, logprobs, usage), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": logprobs}
        return JSONResponse({"model": body["model"], "choices": [choice], "usage": usage})


async def stream(text: str, logprobs: Any, usage: dict[str, Any]) -> Any:
    for letter in text.removesuffix("…"):
        choice = {"index": 0, "delta": {"content": letter}, "logprobs": logprobs}
        yield f"data: {json.dumps({'choices': [choice]})}\n\n"
    if text.endswith("…"):
        raise ConnectionError("the provider breaks off")
    yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"


@dataclass
class Town:
    """Everything that a test inspects."""

    plane: FakeControlPlane
    provider: Provider
    client: httpx.Client

    def ask(self, **body: Any) -> httpx.Response:
        asked = {"model": "tickets", "messages": [{"role": "user", "content": "It burns"}], **body}
        headers = {"pointsman-endpoint": "/tickets", "pointsman-conversation": "c-1"}
        return self.client.post("/v1/chat/completions", json=asked, headers=headers)

    def bucket(self) -> dict[str, Any]:
        """The only recorded bucket."""
        assert self.plane.wait_for(lambda: self.plane.tasks("tickets"))
        (bucket,) = self.plane.buckets("tickets")
        return bucket


@pytest.fixture
def town(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    module, provider = example("gateway.py"), Provider()

    def quick(*given: Any, **options: Any) -> Router:
        return Router(*given, **options, pace=Pace(first_poll_within=0, flush_every=0.05, stop_within=20))

    monkeypatch.setattr(module, "Router", quick)
    with FakeControlPlane() as plane:
        plane.prices = PRICES
        plane.serve("tickets", POLICY, unit="conversation")
        routes = [Route("/v1/chat/completions", provider.completions, methods=["POST"])]
        monkeypatch.setenv("PROVIDER_URL", f"{serve(Starlette(routes=routes))}/v1")
        monkeypatch.setenv("POINTSMAN_URL", plane.url)
        monkeypatch.setenv("POINTSMAN_KEY", plane.key)
        with httpx.Client(base_url=serve(module.app()), timeout=60) as client:
            yield Town(plane, provider, client)


def test_it_returns_the_answer_of_the_chosen_model_and_its_cost(town: Town) -> None:
    town.provider.says = {"small": [(GOOD, -0.01)]}
    answer = town.ask(**JSON_WANTED)
    assert answer.json()["choices"][0]["message"]["content"] == GOOD
    assert answer.headers["x-pointsman-model"] == "small"
    assert town.provider.asked[0]["temperature"] == 0, "the policy's parameters are sent"
    bucket = town.bucket()
    assert (bucket["successes"], bucket["endpoint"], bucket["model"]) == (1, "/tickets", "small")
    assert bucket["cost_nusd"]["sum"] == 150_000 + 60_000
    assert bucket["confidence"]["sum"] == pytest.approx(0.99, abs=0.001)


def test_it_asks_the_stronger_model_when_the_answer_is_uncertain(town: Town) -> None:
    town.provider.says = {"small": [(GOOD, -2.0)], "large": [(GOOD, -0.01)]}
    answer = town.ask()
    assert answer.headers["x-pointsman-model"] == "large"
    bucket = town.bucket()
    assert (bucket["escalations"], bucket["attempts"], bucket["models"]) == (1, 2, {"small": 1, "large": 1})
    assert bucket["ungraded"] == 1, "an answer alone is not a grade"
    assert bucket["cost_nusd"]["sum"] == 210_000 + 4_500_000


def test_an_answer_that_fails_the_check_is_escalated_and_a_final_failure_counts(town: Town) -> None:
    town.provider.says = {"small": [(BAD, None)], "large": [(BAD, None)]}
    answer = town.ask(**JSON_WANTED)
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "gateway")
    bucket = town.bucket()
    assert (bucket["escalations"], bucket["failures"]) == (1, 1)


def test_an_earlier_answer_is_used_if_the_stronger_model_is_unavailable(town: Town) -> None:
    town.provider.says = {"small": [(GOOD, -2.0)], "large": [503]}
    answer = town.ask(**JSON_WANTED)
    assert answer.headers["x-pointsman-model"] == "small"
    assert answer.json()["choices"][0]["message"]["content"] == GOOD
    assert town.bucket()["successes"] == 1


def test_it_retries_then_falls_back(town: Town) -> None:
    town.provider.says = {"small": [429, 503], "large": [(GOOD, None)]}
    assert town.ask(**JSON_WANTED).headers["x-pointsman-model"] == "large"
    bucket = town.bucket()
    assert (bucket["retries"], bucket["fallbacks"], bucket["attempts"]) == (1, 1, 3)


def test_a_request_that_the_provider_refuses_is_not_repeated(town: Town) -> None:
    town.provider.says = {"small": [400]}
    answer = town.ask()
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "HTTP 400")
    assert len(town.provider.asked) == 1
    assert town.bucket()["errors_by_kind"] == {"error": 1}


def test_a_stream_is_passed_through_and_recorded_at_its_end(town: Town) -> None:
    town.provider.says = {"small": [(GOOD, -0.01)]}
    answer = town.ask(stream=True, **JSON_WANTED)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert "".join(e["choices"][0]["delta"]["content"] for e in events if e["choices"]) == GOOD
    assert "data: [DONE]" in answer.text
    assert town.provider.asked[0]["stream_options"] == {"include_usage": True}
    assert DecisionToken.decode(answer.headers["x-pointsman-decision-id"]).workload == "tickets"
    bucket = town.bucket()
    assert (bucket["successes"], bucket["cost_nusd"]["sum"]) == (1, 210_000)


def test_a_stream_falls_back_before_its_first_token(town: Town) -> None:
    town.provider.says = {"small": [503], "large": [(GOOD, None)]}
    answer = town.ask(stream=True)
    assert answer.headers["x-pointsman-model"] == "large"
    assert town.bucket()["fallbacks"] == 1


@pytest.mark.parametrize("whole", [True, False])
def test_an_interrupted_stream_is_recorded(town: Town, whole: bool) -> None:
    town.provider.says = {"small": [("half an answer…" if whole else "an answer " * 10_000, None)]}
    body = {"model": "tickets", "messages": [], "stream": True}
    with town.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        try:
            for _ in answer.iter_lines():
                if not whole:
                    break  # the reader disconnects
        except httpx.HTTPError:
            assert whole
    bucket = town.bucket()
    assert (bucket["errors_by_kind"], bucket["cost_nusd"]["n"]) == ({"connection": 1}, 0)
    assert (bucket["model"], bucket["models"], bucket["fallbacks"]) == ("small", {"small": 1}, 0)


def test_an_uncertain_stream_is_not_recorded_as_escalated(town: Town) -> None:
    """The answer has reached its reader, and no other model was asked."""
    town.provider.says = {"small": [(GOOD, -3.0)]}
    assert town.ask(stream=True).status_code == 200
    bucket = town.bucket()
    assert (bucket["model"], bucket["escalations"], bucket["attempts"]) == ("small", 0, 1)
    assert bucket["confidence"]["sum"] == pytest.approx(0.05, abs=0.001)


def test_a_streams_latency_includes_the_wait_for_the_provider_and_for_earlier_attempts(town: Town) -> None:
    town.provider.says, town.provider.delay_s = {"small": [429, (GOOD, None)]}, 0.2
    assert town.ask(stream=True).status_code == 200
    bucket = town.bucket()
    assert bucket["retries"] == 1
    (edge,) = Histogram.from_dict(bucket["latency_ms"]).counts
    assert upper_edge(edge) >= 390


def test_a_stream_without_spaces_after_its_colons_is_read(town: Town) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": GOOD}}]}
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100}
    end = {"choices": [], "usage": usage}
    town.provider.says = {"small": [f"data:{json.dumps(chunk)}\n\ndata:{json.dumps(end)}\n\ndata:[DONE]\n\n"]}
    assert town.ask(stream=True, **JSON_WANTED).status_code == 200
    bucket = town.bucket()
    assert (bucket["successes"], bucket["errors"], bucket["cost_nusd"]["sum"]) == (1, 0, 210_000)


@pytest.mark.parametrize(
    "odd",
    [
        {"delta": {"content": "{}"}, "logprobs": {"content": [{"logprob": None}]}},
        {"delta": {"content": "{}"}, "logprobs": {"content": [{"logprob": 800.0}]}},
        {"delta": {"content": [{"type": "text"}]}},
    ],
)
def test_a_stream_of_an_unknown_form_is_passed_through_and_recorded(town: Town, odd: dict[str, Any]) -> None:
    chunk = json.dumps({"choices": [{"index": 0, **odd}]})
    town.provider.says = {"small": [f"data: {chunk}\n\ndata: [DONE]\n\n"]}
    answer = town.ask(stream=True)
    assert answer.status_code == 200 and "[DONE]" in answer.text
    assert (town.bucket()["tasks"], town.bucket()["errors"]) == (1, 0)


@pytest.mark.parametrize(
    "usage", [{"total_tokens": 5}, {"prompt_tokens": None, "completion_tokens": 1}, [5], "five"]
)
def test_an_answer_with_an_unknown_form_of_usage_is_used_without_a_cost(town: Town, usage: Any) -> None:
    town.provider.says = {"small": [{"choices": [{"message": {"content": GOOD}}], "usage": usage}]}
    assert town.ask().status_code == 200
    bucket = town.bucket()
    assert (bucket["tasks"], bucket["errors"], bucket["cost_nusd"]["n"]) == (1, 0, 0)


@pytest.mark.parametrize("choices", [[{}], [5], {"message": {}}, [{"message": {"content": [1]}}]])
def test_an_answer_of_an_unknown_form_is_a_failed_attempt(town: Town, choices: Any) -> None:
    town.provider.says = {"small": [{"choices": choices}], "large": [(GOOD, None)]}
    answer = town.ask(**JSON_WANTED)
    assert (answer.status_code, answer.headers["x-pointsman-model"]) == (200, "large")
    bucket = town.bucket()
    assert (bucket["tasks"], bucket["attempts"], bucket["successes"]) == (1, 2, 1)


def test_feedback_is_assigned_to_its_task(town: Town) -> None:
    town.provider.says = {"small": [(GOOD, None)]}
    decision = town.ask().headers["x-pointsman-decision-id"]
    assert DecisionToken.decode(decision).recorded, "it contains the task's cost"
    said = {"decision_id": decision, "kind": "human_review", "success": True}
    assert town.client.post("/v1/feedback", json=said).status_code == 202
    assert town.plane.wait_for(lambda: town.plane.feedback)
    assert town.plane.feedback == [said]
    wrongs: list[Any] = [{}, {**said, "kind": "hearsay"}, [], "x"]
    for wrong in wrongs:
        assert town.client.post("/v1/feedback", json=wrong).status_code == 400


def test_it_reports_what_it_does_not_support(town: Town) -> None:
    assert town.client.post("/v1/chat/completions", content=b"{").status_code == 400
    unknown = town.ask(model="ticket")
    assert unknown.status_code == 404
    assert "no policy" in unknown.json()["error"]["message"]
    assert eventually(lambda: town.client.get("/healthz").json()["workloads_unknown"] == ["ticket"])


@pytest.mark.parametrize(("key", "says"), [("", "key is missing or empty"), ("pmr_wrong", "HTTP 401")])
def test_it_exits_with_an_explanation_if_its_key_cannot_work(
    monkeypatch: pytest.MonkeyPatch, key: str, says: str
) -> None:
    with FakeControlPlane() as plane:
        monkeypatch.setenv("POINTSMAN_URL", plane.url)
        monkeypatch.setenv("POINTSMAN_KEY", key)
        with pytest.raises(SystemExit, match=says):
            example("gateway.py").app()


def test_it_answers_during_an_outage_of_the_control_plane(town: Town) -> None:
    town.provider.says = {"small": [(GOOD, None)]}
    with town.plane.outage():
        assert town.ask().status_code == 200
    assert town.bucket()["tasks"] == 1
